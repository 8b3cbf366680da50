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

from billing.money import half_away

ROWS_MAX: Final = 10
# One walk over the days' rows for all three, which are then sums of few: of every day, and of
# models and tenants the greatest by what moved, so that one that only costs is seen too.
SUMS: Final = """
    WITH sums AS (
        SELECT day, model, tenant_id, sum(cost_pico) AS revenue, sum(supplier_cost_pico) AS cost
        FROM billing_earnedday WHERE day BETWEEN %(since)s AND %(until)s
        GROUP BY GROUPING SETS ((day), (model), (tenant_id))
    ), named AS (
        SELECT sums.*, coalesce(t.name, model, day::text) COLLATE "C" AS name
        FROM sums LEFT JOIN billing_tenant t ON t.id = tenant_id
    ), ranked AS (
        SELECT *, row_number() OVER (
            PARTITION BY day IS NULL, tenant_id IS NULL
            ORDER BY greatest(revenue, cost) DESC, name, tenant_id) AS place
        FROM named
    )
    SELECT day, tenant_id IS NOT NULL, name, revenue, cost
    FROM ranked WHERE day IS NOT NULL OR place <= %(most)s ORDER BY place
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
        by_model=by_model,
        by_tenant=by_tenant,
    )


def _sums(since: date, until: date) -> tuple[dict[date, Earned], list[Earned], list[Earned]]:
    by_day: dict[date, Earned] = {}
    by_model: list[Earned] = []
    by_tenant: list[Earned] = []
    with connection.cursor() as cursor:
        cursor.execute(SUMS, {"since": since, "until": until, "most": ROWS_MAX})
        for day, is_tenant, name, *sums in cursor.fetchall():
            earned = Earned(name, *map(int, sums))
            if day is not None:
                by_day[day] = earned
            else:
                (by_tenant if is_tenant else by_model).append(earned)
    return by_day, by_model, by_tenant
