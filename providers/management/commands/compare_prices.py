"""`manage.py compare_prices FILE`: our list prices against another source's; nothing changes."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.prices import second_source as price_check
from providers.market import price_files


class Command(BaseCommand):
    help = "Alert where OpenRouter's /models JSON or LiteLLM's price map is more than 1 % away."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--provider", default="openrouter", help="whose /models list it is")

    def handle(self, *args: Any, file: Path, provider: str, **options: Any) -> None:
        try:
            with file.open("rb") as opened:
                body = opened.read(price_files.FILE_BYTES_MAX + 1)
            found = price_files.read(body, provider=provider)
        except (OSError, price_files.PriceFileRefused) as problem:
            raise CommandError(str(problem)) from problem
        source = f"{found.format}: {file.name}"[:120]
        done = price_check.compare(found.stated, source=source, now=timezone.now())
        for why, entries in sorted(found.skipped.items()):
            self.stdout.write(f"{entries} entries left out: {why}")
        self.stdout.write(
            f"{done.rates} rates of {done.skus} skus compared, {done.unknown} skus not in our "
            f"catalogue; {done.apart} rates are more than 1 % apart"
            + (": admin console, Price disagreements" if done.apart else "")
        )
