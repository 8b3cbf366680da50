"""Trues up estimates: where an engine's count comes after the charge, what was too much goes back.

An event is never rewritten. The count is kept once per attempt, and what a tenant gets back for all
of its attempts is one adjustment note a run. Nobody is charged more than it was told: output and
sum only go down. A price correction leaves these attempts out, and they what it has corrected.
"""

from collections import defaultdict
from collections.abc import Collection
from datetime import date, datetime
from typing import Final

import msgspec
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from billing import basis, fault_isolation, rating
from billing.corrections import adjustments
from billing.drain import late_counts
from billing.models import AdjustmentNote, ReRating, Tenant, TrueUp, UsageEvent
from billing.rating import PriceNotFound
from billing.usage import CanonicalUsage, UsageError

OF_TENANT_MAX: Final = 10_000  # in a note; what is left is the next run's
POSTED_BY: Final = "the house"


def estimated(*, offers: Collection[int], since: datetime) -> "QuerySet[UsageEvent]":
    """What was charged an estimate at these offers since then and has no count yet; tenants in
    turn, of each the newest first, for an engine forgets the oldest."""
    counted = TrueUp.objects.filter(request_id=OuterRef("request_id"), attempt=OuterRef("attempt"))
    found = (
        UsageEvent.objects.filter(
            offer_id__in=offers,
            drained_at__gte=since,
            usage_source__in=basis.ESTIMATES,
            attempt__gte=0,
            state=UsageEvent.State.POSTED,
            quarantine_reason="",
            price_version__isnull=False,
        )
        .exclude(Exists(counted))
        .select_related("price_version")
    )
    return late_counts.in_turn(found, "-pk")


def note_count(event: UsageEvent, counted: CanonicalUsage, *, now: datetime) -> bool:
    """Keep what an engine counted of an attempt; False where that is no count, or has no price.
    Again it changes nothing."""
    usage = _downwards(event, counted)
    # Also where its expiry had paid a part of it before.
    charged_pico = event.rated_pico - event.overage_pico
    try:
        price, _ = late_counts.prices_of(event, usage)
        due_pico = min(rating.rate(usage, price), charged_pico)
    except (PriceNotFound, UsageError):
        return False
    if usage.input_tokens == 0 or charged_pico < 0:
        return False
    made = TrueUp(
        request_id=event.request_id,
        attempt=event.attempt,
        day=event.day,
        tenant_id=event.tenant_id,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        charged_pico=charged_pico,
        due_pico=charged_pico if _is_corrected(event) else due_pico,
        counted_at=now,
    )
    TrueUp.objects.bulk_create([made], ignore_conflicts=True)
    return True


def _downwards(event: UsageEvent, counted: CanonicalUsage) -> CanonicalUsage:
    """An engine counts what it sent; what was shown, and told, can be less."""
    if counted.output_tokens <= event.output_tokens:
        return counted
    return msgspec.structs.replace(
        counted,
        output_tokens=event.output_tokens,
        reasoning_tokens=event.reasoning_tokens,
        output_audio_tokens=event.output_audio_tokens,
    )


def _is_corrected(event: UsageEvent) -> bool:
    """Whether a price correction has made up its sum already."""
    when = event.occurred_at
    return ReRating.objects.filter(sku=event.sku, since__lte=when, until__gt=when).exists()


def post_due(*, now: datetime) -> int:
    """Give every tenant back what its counts say; returns how many attempts that was. Each tenant
    apart, with one note."""
    waiting = _open().order_by("tenant").values_list("tenant", flat=True).distinct()
    return sum(
        fault_isolation.each(
            list(waiting), lambda tenant: _post(tenant, now), name=lambda tenant: f"tenant {tenant}"
        )
    )


def _open() -> "QuerySet[TrueUp]":
    return TrueUp.objects.filter(note=None, due_pico__lt=F("charged_pico"))


def _post(tenant_id: int, now: datetime) -> int:
    """The note and its mark on each attempt, or neither; who runs beside it waits, and finds
    nothing left."""
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        rows = list(_open().filter(tenant=tenant).order_by("pk")[:OF_TENANT_MAX])
        if not rows:
            return 0
        months: dict[date, int] = defaultdict(int)
        for row in rows:
            months[row.day.replace(day=1)] += row.given_back_pico
        note = adjustments.post(
            tenant=tenant,
            cause=AdjustmentNote.Cause.CORRECTION,
            amount_pico=sum(months.values()),
            months=months,
            reason=f"counted after it was charged at an estimate: {len(rows)} attempts",
            created_by=POSTED_BY,
            now=now,
        )
        TrueUp.objects.filter(pk__in=[row.pk for row in rows]).update(note=note)
    return len(rows)
