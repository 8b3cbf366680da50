"""What the house earns: revenue, suppliers' cost and the margin between, by day, model, tenant.

From the rollups, so the cost of looking does not grow with the number of events. As rated:
corrections, rebates and credit notes are in the ledger, not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from django.db import connection

from billing.models import Tenant
from billing.money import half_away

ROWS_MAX: Final = 10
# One walk over the days' rows for all three, which are then sums of few.
SUMS: Final = """
    WITH used AS (
        SELECT day, model, tenant_id, sum(cost_pico) AS revenue, sum(supplier_cost_pico) AS cost
        FROM billing_usageday WHERE day BETWEEN %s AND %s GROUP BY day, model, tenant_id
    ) SELECT day, model, tenant_id, sum(revenue), sum(cost)
    FROM used GROUP BY GROUPING SETS ((day), (model), (tenant_id))
"""


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
    by_day, by_model, by_tenant = _sums(since, until)
    days = [since + timedelta(days=offset) for offset in range((until - since).days + 1)]
    return Margins(
        total=Earned(
            "total",
            sum(row.revenue_pico for row in by_day.values()),
            sum(row.cost_pico for row in by_day.values()),
        ),
        by_day=[(day, by_day.get(day, Earned(str(day), 0, 0))) for day in days],
        by_model=_dearest(by_model),
        by_tenant=_dearest(by_tenant),
    )


def _sums(since: date, until: date) -> tuple[dict[date, Earned], list[Earned], list[Earned]]:
    by_day: dict[date, Earned] = {}
    by_model: list[Earned] = []
    by_tenant: dict[int, tuple[int, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(SUMS, [since, until])
        for day, model, tenant, *sums in cursor.fetchall():
            revenue_pico, cost_pico = map(int, sums)
            if day is not None:
                by_day[day] = Earned(str(day), revenue_pico, cost_pico)
            elif tenant is not None:
                by_tenant[tenant] = (revenue_pico, cost_pico)
            else:
                by_model.append(Earned(model, revenue_pico, cost_pico))
    names = dict(Tenant.objects.filter(pk__in=by_tenant).values_list("pk", "name"))
    return by_day, by_model, [Earned(names[pk], *sums) for pk, sums in by_tenant.items()]


def _dearest(rows: Sequence[Earned]) -> list[Earned]:
    """The greatest by what moved, so that a model that only costs is seen too."""
    return sorted(rows, key=lambda r: (-max(r.revenue_pico, r.cost_pico), r.name))[:ROWS_MAX]
