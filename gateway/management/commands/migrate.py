"""`migrate` as Django's, but in its own time: an index on a large table takes minutes.

For locks it waits as briefly as everybody else: nobody who writes is stopped by a migration.
"""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from gateway.database import answering


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        with answering.in_its_own_time(connections[options["database"]]):
            super().handle(*args, **options)
