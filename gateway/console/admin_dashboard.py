"""The first page of the admin console: whether the money is right, and what is going on."""

from typing import Any, Final

from django.http import HttpRequest
from redis.exceptions import RedisError

from billing import hold_queries
from billing.models import InvariantCheck, TaskRun, Tenant, UsageEvent
from providers.models import Offer, Worker

TASKS_SHOWN: Final = 20


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Adds to the page what an operator looks at first."""
    checks = list(InvariantCheck.objects.order_by("holds", "name"))
    try:
        open_holds: int | None = hold_queries.open_holds().count
    except RedisError:
        open_holds = None
    quarantined = UsageEvent.objects.filter(state=UsageEvent.State.QUARANTINED).count()
    context.update(
        checks=checks,
        broken=[check for check in checks if not check.holds],
        runs=TaskRun.objects.order_by("name")[:TASKS_SHOWN],
        open_holds=open_holds,
        quarantined=quarantined,
        tenants=Tenant.objects.count(),
        workers=Worker.objects.count(),
        not_live=Offer.objects.filter(worker__isnull=False).exclude(state=Offer.State.LIVE).count(),
    )
    return context
