"""What the house earns: revenue, suppliers' cost and the margin between, by day, model, tenant.

From the rollups, so the cost of looking does not grow with the number of events. As rated:
corrections, rebates and credit notes are in the ledger, not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import QuerySet, Sum

from billing.models import UsageDay
from billing.money import half_away

ROWS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Earned:
    """Of one day, model or tenant. `wasted` attempts cost and bring nothing: they are in it."""

    name: str
    revenue_pico: int
    cost_pico: int

    @property
    def margin_pico(self) -> int:
        return self.revenue_pico - self.cost_pico

    @property
    def share(self) -> Decimal | None:
        """The margin as a part of the revenue, rounded to a ten-thousandth; None where there is
        no revenue."""
        if not self.revenue_pico:
            return None
        return Decimal(half_away(self.margin_pico * 10_000, self.revenue_pico)).scaleb(-4)


@dataclass(frozen=True, slots=True)
class Margins:
    """Sums over the days from `since` to `until`, both included (UTC, the requests' own)."""

    total: Earned
    by_day: Sequence[tuple[date, Earned]]
    by_model: Sequence[Earned]
    by_tenant: Sequence[Earned]


def read(*, since: date, until: date) -> Margins:
    used = UsageDay.objects.filter(day__gte=since, day__lte=until)
    found = {row.name: row for row in _by(used, "day")}
    days = [since + timedelta(days=offset) for offset in range((until - since).days + 1)]
    by_day = [(day, found.get(str(day), Earned(str(day), 0, 0))) for day in days]
    return Margins(
        total=Earned(
            "total",
            sum(row.revenue_pico for row in found.values()),
            sum(row.cost_pico for row in found.values()),
        ),
        by_day=by_day,
        by_model=_dearest(_by(used, "model")),
        by_tenant=_dearest(_by(used, "tenant__name")),
    )


def _by(used: QuerySet[UsageDay], name: str) -> list[Earned]:
    rows = used.values(name).annotate(revenue=Sum("cost_pico"), cost=Sum("supplier_cost_pico"))
    return [Earned(str(row[name]), int(row["revenue"]), int(row["cost"])) for row in rows]


def _dearest(rows: Sequence[Earned]) -> list[Earned]:
    """The greatest by what moved, so that a model that only costs is seen too."""
    return sorted(rows, key=lambda r: (-max(r.revenue_pico, r.cost_pico), r.name))[:ROWS_MAX]
