"""Forgets rows that nobody asks for any more, in bounded batches. Money is never forgotten.

Rows come in the order of time, so the oldest of a table are looked at, and no more than go; an
index of the time, which every write would pay for, is not needed. The audit log is append-only:
PostgreSQL lets go of an entry only when it is years old and this module says up to when.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from billing import audit, fault_isolation, registers
from billing.models import AlertDelivery, AuditEntry, BudgetAlert, CreditAlert, ProcessorEvent

BATCH: Final = 2_000
BATCHES_PER_RUN_MAX: Final = 50
AUDIT_ACTOR: Final = "retention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Rows of one kind, each kept for so long from its moment on; `in_order` of that moment."""

    name: str
    rows: QuerySet[Any]
    moment: Combinable
    lasts: timedelta
    in_order: str = "pk"


def of_billing() -> list[Kept]:
    """What billing keeps for a while. Messages that wait for their payment or for a person stay,
    and so does word of a budget without end: it is told once for good."""
    alerts = timedelta(days=settings.ALERTS_DAYS)
    final = (ProcessorEvent.State.DONE, ProcessorEvent.State.GIVEN_UP)
    return [
        Kept(
            name="deliveries of notes",
            rows=AlertDelivery.objects.filter(alert=None, credit_alert=None, due_at=None),
            moment=Coalesce("delivered_at", "refund__issued_at", "adjustment__issued_at"),
            lasts=alerts,
        ),
        Kept(
            name="budget alerts",
            rows=BudgetAlert.objects.exclude(bucket=registers.LIFETIME),
            moment=F("occurred_at"),
            lasts=alerts,
        ),
        Kept(
            name="credit alerts",
            rows=CreditAlert.objects.all(),
            moment=F("occurred_at"),
            lasts=alerts,
        ),
        Kept(
            name="processor's messages",
            rows=ProcessorEvent.objects.filter(state__in=final),
            moment=F("received_at"),
            lasts=timedelta(days=settings.PROCESSOR_EVENTS_DAYS),
        ),
    ]


def forget(kinds: Iterable[Kept], *, now: datetime) -> int:
    """Delete what is past its time of these kinds, each apart; returns how many rows went."""
    return sum(
        fault_isolation.each(kinds, lambda kept: _forget(kept, now), name=lambda kept: kept.name)
    )


def _forget(kept: Kept, now: datetime) -> int:
    oldest = kept.rows.annotate(moment_kept=kept.moment).order_by(kept.in_order)
    forgotten = 0
    for _ in range(BATCHES_PER_RUN_MAX):
        looked_at = list(oldest.values_list("pk", "moment_kept")[:BATCH])
        past = [pk for pk, moment in looked_at if moment < now - kept.lasts]
        kept.rows.filter(pk__in=past).delete()
        forgotten += len(past)
        if len(past) < BATCH:
            break
    return forgotten


def forget_audit(*, now: datetime) -> int:
    """Delete audit entries that are past their years, and write down how many went."""
    until = now - timedelta(days=settings.AUDIT_DAYS)
    forgotten = 0
    for _ in range(BATCHES_PER_RUN_MAX):
        gone = _forget_entries(until, now)
        forgotten += gone
        if gone < BATCH:
            break
    return forgotten


@transaction.atomic
def _forget_entries(until: datetime, now: datetime) -> int:
    looked_at = AuditEntry.objects.order_by("pk").values_list("pk", "occurred_at")[:BATCH]
    past = [pk for pk, moment in looked_at if moment < until]
    if not past:
        return 0
    with connection.cursor() as cursor:
        # Of this transaction alone; the trigger knows it.
        cursor.execute(
            "SELECT set_config('tokenhouse.audit_forgotten_until', %s, true)", [until.isoformat()]
        )
    AuditEntry.objects.filter(pk__in=past).delete()
    audit.record(
        actor=AUDIT_ACTOR,
        action="audit.forget",
        subject=f"entries of before {until:%d %b %Y}: {len(past)}",
        now=now,
    )
    return len(past)
