"""What a tenant is told of an event in quarantine: how much is held, why, and until when."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from billing.models import UsageEvent
from billing.money import PICO_PER_NANO


@dataclass(frozen=True, slots=True)
class Held:
    """`estimate_pico` is what is charged when nobody has decided by `settled_by`."""

    amount_pico: int
    estimate_pico: int
    reason: str
    settled_by: datetime


def of(event: UsageEvent) -> Held | None:
    """None where the event is charged."""
    if event.state != UsageEvent.State.QUARANTINED:
        return None
    amount_pico = max(event.charged_nano, 0) * PICO_PER_NANO
    estimate = event.detail.get("estimate") or {}
    return Held(
        amount_pico=amount_pico,
        estimate_pico=min(estimate.get("tenant_pico", 0), amount_pico),
        reason=event.quarantine_reason,
        settled_by=event.drained_at + timedelta(days=settings.QUARANTINE_DAYS),
    )
