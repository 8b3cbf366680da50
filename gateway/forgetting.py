"""What the gateway keeps for a while only, refusals and sign-ins; and the run that forgets."""

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import F

from billing import fault_isolation
from billing.operations import retention
from billing.operations.retention import Kept
from gateway.models import Refusal


def of_gateway() -> list[Kept]:
    return [
        Kept(
            name="refusals",
            rows=Refusal.objects.all(),
            moment=F("occurred_at"),
            lasts=timedelta(days=settings.REFUSALS_DAYS),
        ),
        Kept(
            name="sign-ins that have ended",
            rows=Session.objects.all(),
            moment=F("expire_date"),
            lasts=timedelta(0),
            in_order="expire_date",
        ),
    ]


def forget_old(*, now: datetime) -> None:
    """Everything that is past its time, each kind apart."""
    with fault_isolation.told_at_the_end():
        retention.forget([*retention.of_billing(), *of_gateway()], now=now)
        with fault_isolation.apart("audit entries"):
            retention.forget_audit(now=now)
