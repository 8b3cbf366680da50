"""`manage.py post_rebates [2026-03]`: volume rebates of a month; again posts what is off since."""

from argparse import ArgumentParser
from datetime import date, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.corrections import rebates
from billing.errors import BillingError
from billing.money import usd


class Command(BaseCommand):
    help = "Post the volume rebates of a month (last month if none is named)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("month", nargs="?", help="as 2026-03")

    def handle(self, *args: Any, month: str | None, **options: Any) -> None:
        now = timezone.now()
        try:
            wanted = date.fromisoformat(f"{month}-01") if month else _last_month(now.date())
            posted = rebates.post_month(wanted, actor="post_rebates", now=now)
        except (ValueError, BillingError) as problem:
            raise CommandError(f"nothing was posted: {problem}") from problem
        for rebate in posted:
            self.stdout.write(f"{rebate.tenant}: ${usd(rebate.grant.amount_pico):f}")
        self.stdout.write(f"{len(posted)} rebates for {wanted:%Y-%m} are posted")


def _last_month(today: date) -> date:
    return (today.replace(day=1) - timedelta(days=1)).replace(day=1)
