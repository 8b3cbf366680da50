"""`manage.py rotate_credentials`: encrypt every stored secret anew with the newest key."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from providers.market import credentials


class Command(BaseCommand):
    help = (
        "Encrypt every provider's and worker's secret with the first of "
        "TOKENHOUSE_CREDENTIAL_KEYS. Put a new key in front, restart, run this, then drop the old."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{credentials.rotate_all(now=timezone.now())} secrets rotated")
