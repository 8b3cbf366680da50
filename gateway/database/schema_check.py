"""Refuses to run old code on a newer schema: it would write rows that the new code does not mean.

PostgreSQL being away is no reason not to start; whoever starts then asks again when it answers.
"""

from typing import Final

from django.apps import apps
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.utils import DatabaseError

OURS: Final = ("billing", "providers", "gateway")


class SchemaNewer(RuntimeError):
    """The database has been migrated by a later release."""


def check() -> bool:
    """Whether PostgreSQL answered; SchemaNewer where it holds migrations that we do not know."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    try:
        applied = set(MigrationRecorder(connection).applied_migrations())
    except DatabaseError:
        return False
    ours = [label for label in OURS if apps.is_installed(label)]
    replaced = {name for each in loader.disk_migrations.values() for name in each.replaces}
    unknown = sorted(
        f"{app}.{name}"
        for app, name in applied
        if app in ours and (app, name) not in loader.disk_migrations and (app, name) not in replaced
    )
    if unknown:
        raise SchemaNewer(
            f"the database was migrated by a later release ({', '.join(unknown)}): "
            "start that release, or restore a backup of before"
        )
    return True
