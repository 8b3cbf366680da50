"""`migrate` as Django's, but in its own time: an index on a large table takes minutes.

For locks it waits as briefly as everybody else: nobody who writes is stopped by a migration.
"""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from gateway.database import time_limits


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        with time_limits.unlimited(connections[options["database"]]):
            super().handle(*args, **options)
