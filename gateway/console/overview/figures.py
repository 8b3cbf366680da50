"""The figures of the overview. The parts of the chart sum to the spend above it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from django.http import HttpResponse

from billing.books import usage_sums
from billing.books.usage_sums import DaySpend, Totals
from billing.models import Quota, Tenant
from gateway.console.overview import spend_chart
from gateway.console.overview.forecast import Forecast, month_end
from gateway.console.overview.periods import Period
from gateway.console.overview.spend_chart import Series, SpendChart
from gateway.console.spreadsheet import csv_response

TOKENS_PER_MILLION: Final = 1_000_000
SPEND_HEAD: Final = (
    "day model supplier requests attempts input_tokens output_tokens cost_pico"
).split()


@dataclass(frozen=True, slots=True)
class Figures:
    now: Totals
    before: Totals
    budget_pico: int | None
    forecast: Forecast | None
    series: list[Series]
    days: list[date]
    chart: SpendChart

    @property
    def budget_share(self) -> float | None:
        return self.now.cost_pico / self.budget_pico if self.budget_pico else None

    @property
    def paid_pico(self) -> float | None:
        """Pico-dollars per output token, input included; per million it is in micro-dollars."""
        return _per_token(self.now)

    @property
    def paid_change(self) -> float | None:
        return _change(_per_token(self.now), _per_token(self.before))

    @property
    def tokens_change(self) -> float | None:
        return _change(self.now.output_tokens, self.before.output_tokens)

    @property
    def cache_share(self) -> float | None:
        if not self.now.input_tokens:
            return None
        return self.now.cache_read_tokens / self.now.input_tokens


def read(tenant: Tenant, period: Period) -> Figures:
    days = period.chart_days
    first = datetime.combine(days[0], time.min, UTC)
    spends = usage_sums.spend_by_day(int(tenant.pk), since=first, until=period.until)
    series = spend_chart.series_of(spends)
    today = period.until.date()
    forecast = None
    if period.span == "month":
        last_day = (period.ends - timedelta(days=1)).date()
        forecast = month_end(_by_day(spends), today=today, last_day=last_day)
    return Figures(
        now=usage_sums.totals(int(tenant.pk), since=period.since, until=period.until),
        before=usage_sums.totals(
            int(tenant.pk), since=period.before_since, until=period.before_until
        ),
        budget_pico=_budget(tenant, period.span, period.until),
        forecast=forecast,
        series=series,
        days=days,
        chart=spend_chart.chart(series, days=days, today=today, forecast=forecast),
    )


def _budget(tenant: Tenant, span: str, now: datetime) -> int | None:
    found = Quota.objects.filter(
        tenant=tenant, scope_kind="tenant", scope_id=str(tenant.pk), window=span, shadow=False
    ).first()
    return None if found is None else found.limit_at(now)


def _by_day(spends: Iterable[DaySpend]) -> dict[date, int]:
    sums: dict[date, int] = defaultdict(int)
    for spend in spends:
        sums[spend.day] += spend.cost_pico
    return sums


def _per_token(totals: Totals) -> float | None:
    return totals.cost_pico / totals.output_tokens if totals.output_tokens else None


def _change(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else round((now - before) * 100 / before, 1)


def spend_csv(spends: Iterable[DaySpend]) -> HttpResponse:
    """Spend by day, model and supplier; costs in whole pico-dollars, so that they add up."""
    rows = (
        (
            s.day,
            s.model,
            s.supplier,
            s.requests,
            s.attempts,
            s.input_tokens,
            s.output_tokens,
            s.cost_pico,
        )
        for s in spends
    )
    return csv_response("spend.csv", head=SPEND_HEAD, rows=rows)
