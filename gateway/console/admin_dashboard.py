"""The first page of the admin console: what is earned, whether the money is right, what goes on."""

from datetime import timedelta
from typing import Any, Final, TypedDict

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from redis.exceptions import RedisError

from billing.books import margins
from billing.books.margins import Margins
from billing.holding import open_holds as hold_queries
from billing.models import (
    Claim,
    Finding,
    InvariantCheck,
    RefusedSettle,
    TaskRun,
    Tenant,
    UsageEvent,
)
from providers.models import Offer, Worker

TASKS_SHOWN: Final = 50
DAYS_SHOWN: Final = 30
WAITING_COUNTED: Final = 10_000


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Adds to the page what an operator looks at first."""
    checks = list(InvariantCheck.objects.order_by("holds", "name"))
    try:
        open_holds: int | None = hold_queries.open_holds().count
    except RedisError:
        open_holds = None
    if request.user.has_perm("billing.view_usageevent"):
        today = timezone.now().date()
        earned = margins.read(since=today - timedelta(days=DAYS_SHOWN - 1), until=today)
        context.update(earned=earned, earned_chart=_chart(earned), days_shown=DAYS_SHOWN)
    context.update(
        checks=checks,
        broken=[check for check in checks if not check.holds],
        runs=TaskRun.objects.order_by("name")[:TASKS_SHOWN],
        open_holds=open_holds,
        quarantined=_waiting(UsageEvent.objects.filter(state=UsageEvent.State.QUARANTINED)),
        claims=_waiting(Claim.objects.filter(decided_at=None)),
        altered=_waiting(Finding.objects.filter(resolved_at=None)),
        refused_settles=_waiting(RefusedSettle.objects.filter(state=RefusedSettle.State.WAITING)),
        tenants=Tenant.objects.count(),
        workers=Worker.objects.count(),
        not_live=Offer.objects.filter(worker__isnull=False).exclude(state=Offer.State.LIVE).count(),
    )
    return context


def _waiting(rows: QuerySet[Any]) -> str:
    """How many wait for a person, as far as is worth counting."""
    found = rows[: WAITING_COUNTED + 1].count()
    return f"more than {WAITING_COUNTED:,}" if found > WAITING_COUNTED else f"{found:,}"


class MarginChart(TypedDict):
    """What js/charts/margin.js draws. Dollars as floats here: pixels, not money."""

    days: list[str]
    revenue: list[float]
    cost: list[float]
    margin: list[float]


def _chart(earned: Margins) -> MarginChart:
    return {
        "days": [f"{day.day} {day:%b}" for day, _ in earned.by_day],
        "revenue": [row.revenue_pico / 1e12 for _, row in earned.by_day],
        "cost": [row.cost_pico / 1e12 for _, row in earned.by_day],
        "margin": [row.margin_pico / 1e12 for _, row in earned.by_day],
    }
