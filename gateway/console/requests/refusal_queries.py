"""Reads of refusals: requests of a tenant that were turned away before any attempt, and those that
a budget which only watches would have turned away."""

from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from gateway.errors import WOULD_REFUSE
from gateway.models import Refusal


def _refused(tenant_id: int) -> "QuerySet[Refusal]":
    return Refusal.objects.filter(tenant_id=tenant_id).exclude(code=WOULD_REFUSE)


def watched(tenant_id: int, *, since: datetime, limit: int) -> tuple[int, list[Refusal]]:
    """How many requests since then were served that a watching budget would have refused, and the
    newest of them."""
    found = Refusal.objects.filter(tenant_id=tenant_id, code=WOULD_REFUSE, occurred_at__gte=since)
    return found.count(), list(found.order_by("-occurred_at", "-pk")[:limit])


def newest(
    tenant_id: int,
    *,
    model: str = "",
    api_key_id: int | None = None,
    before: UUID | None = None,
    limit: int,
) -> list[Refusal]:
    """The newest, newest first, whose requests' ids are smaller than `before`."""
    found = _refused(tenant_id)
    if model:
        found = found.filter(model=model)
    if api_key_id is not None:
        found = found.filter(api_key_id=api_key_id)
    if before is not None:
        found = found.filter(request_id__lt=before)
    return list(found.order_by("-request_id")[:limit])


def one(tenant_id: int, request_id: UUID) -> Refusal | None:
    return _refused(tenant_id).filter(request_id=request_id).first()


def newest_id(tenant_id: int) -> int:
    """Grows with every refusal recorded for the tenant; 0 before the first."""
    newest_one = Refusal.objects.filter(tenant_id=tenant_id).order_by("-occurred_at").first()
    return 0 if newest_one is None else int(newest_one.pk)
