"""Prints an anchor: keep it where nobody who can write to the database can."""

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand

from billing.integrity import anchors

ACTOR = "manage.py"


class Command(BaseCommand):
    help = "Seal what is new and print an anchor of all sealed rows, to be kept elsewhere."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(anchors.give(now=datetime.now(UTC), actor=ACTOR))
