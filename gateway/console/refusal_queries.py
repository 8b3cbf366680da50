"""Reads of refusals: requests of a tenant that were turned away before any attempt."""

from datetime import datetime
from uuid import UUID

from gateway.models import Refusal


def newest(
    tenant_id: int,
    *,
    model: str = "",
    api_key_id: int | None = None,
    before: datetime | None = None,
    limit: int,
) -> list[Refusal]:
    found = Refusal.objects.filter(tenant_id=tenant_id)
    if model:
        found = found.filter(model=model)
    if api_key_id is not None:
        found = found.filter(api_key_id=api_key_id)
    if before is not None:
        found = found.filter(occurred_at__lt=before)
    return list(found.order_by("-occurred_at", "-pk")[:limit])


def one(tenant_id: int, request_id: UUID) -> Refusal | None:
    return Refusal.objects.filter(tenant_id=tenant_id, request_id=request_id).first()


def newest_id(tenant_id: int) -> int:
    """Grows with every refusal recorded for the tenant; 0 before the first."""
    newest_one = Refusal.objects.filter(tenant_id=tenant_id).order_by("-occurred_at").first()
    return 0 if newest_one is None else int(newest_one.pk)
