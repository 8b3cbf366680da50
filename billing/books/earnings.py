"""What a supplier earned: per offer and day, and by who bought. Read only.

Buyers pay = the supplier's credit + the house's margin, to the pico-dollar, in each row and in the
ledger; an attempt that nobody paid for costs the house what the supplier charges for it. Days are
those of the requests (UTC), whole ones; a request is one attempt at this supplier. Read from the
rollups, so that a statement costs the same however much was sold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from django.db.models import QuerySet, Sum

from billing.models import UsageDay

# A statement covers a quarter at most.
SPAN_MAX: Final = timedelta(days=93)
ROWS_MAX: Final = 50_000
INSTANT: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earning:
    """One offer's day. `tenant_id` and `team_id` are None where buyers are not told apart."""

    day: date
    sku: str
    requests: int
    input_tokens: int
    output_tokens: int
    paid_pico: int
    credit_pico: int
    tenant_id: int | None = None
    team_id: int | None = None

    @property
    def house_pico(self) -> int:
        return self.paid_pico - self.credit_pico


def by_day(supplier: str, *, since: datetime, until: datetime) -> list[Earning]:
    """What each of a supplier's offers earned on each day, newest first."""
    return _read(supplier, since, until, ())


def by_buyer(supplier: str, *, since: datetime, until: datetime) -> list[Earning]:
    """The same, for each buying tenant and team: for charging it back."""
    return _read(supplier, since, until, ("tenant_id", "team_id"))


def _read(supplier: str, since: datetime, until: datetime, buyer: Sequence[str]) -> list[Earning]:
    if not supplier or not since < until <= since + SPAN_MAX:
        return []
    days: QuerySet[UsageDay] = UsageDay.objects.filter(
        supplier=supplier, day__gte=since.date(), day__lte=(until - INSTANT).date()
    )
    rows: Any = (
        days.values("day", "sku", *buyer)
        .annotate(
            calls=Sum("attempts"),
            input=Sum("input_tokens"),
            output=Sum("output_tokens"),
            paid=Sum("cost_pico"),
            over=Sum("overage_pico"),
            credit=Sum("supplier_cost_pico"),
        )
        .order_by("-day", "sku", *buyer)[:ROWS_MAX]
    )
    return [
        Earning(
            day=row["day"],
            sku=row["sku"],
            requests=int(row["calls"]),
            input_tokens=int(row["input"]),
            output_tokens=int(row["output"]),
            # What a provider reported above a hold is revenue that the house pays itself.
            paid_pico=int(row["paid"]) + int(row["over"]),
            credit_pico=int(row["credit"]),
            tenant_id=row.get("tenant_id"),
            team_id=row.get("team_id"),
        )
        for row in rows
    ]
