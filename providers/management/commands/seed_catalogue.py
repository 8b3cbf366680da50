"""`manage.py seed_catalogue`: the price catalogue from bundled data, idempotent, no network."""

from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from providers.market import catalogue


class Command(BaseCommand):
    help = "Seed providers, models, offers and dated prices from the bundled catalogue."

    def handle(self, *args: Any, **options: Any) -> None:
        done = catalogue.seed(recorded_by="seed_catalogue", now=timezone.now())
        self.stdout.write(
            f"catalogue: {done.providers} providers, {done.models} models, {done.offers} offers, "
            f"{done.prices} price versions added; {len(done.unpriced)} without a token price"
        )
        if done.proposed:
            self.stdout.write(
                f"{done.proposed} price changes wait for a decision: admin console, Price proposals"
            )
