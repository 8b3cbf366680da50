"""`manage.py add_worker_key "GPU box" 10.0.0.5/32`: lets a machine in that network sell here."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from providers.machines import workers


class Command(BaseCommand):
    help = "Issue a worker key bound to a network and print the line that joins a machine."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("label", help="what the key is for")
        parser.add_argument("network", help="address or network that workers may name")

        parser.add_argument("--model", action="append", default=[], help="that they may sell")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            _, plain = workers.issue_key(
                label=options["label"],
                allowed_network=options["network"],
                models_allowed=options["model"],
                created_by="add_worker_key",
                now=timezone.now(),
            )
        except ValueError as problem:
            raise CommandError(str(problem)) from None
        line = workers.join_line(console_url=settings.PUBLIC_CONSOLE_URL, plain_key=plain)
        self.stdout.write(f"Run this in a clone on the other machine:\n\n  {line}")
