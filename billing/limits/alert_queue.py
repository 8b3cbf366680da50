"""Word that waits for its receivers: each channel has one sender at a time, and its own pauses.

A sender claims a channel for a short while and renews the claim with every message; one that falls
silent loses it. A message counts as tried, and is due again later, before it is sent: so a crash in
between repeats it (with the same id) a bounded number of times.
"""

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Min, Q

from billing.models import AlertChannel, AlertDelivery

TRIES_MAX: Final = 8
FIRST_PAUSE: Final = timedelta(seconds=15)
CLAIM_LASTS: Final = timedelta(seconds=30)


def claim_due(*, now: datetime, at_most: int) -> list[AlertChannel]:
    """Channels that have something due and no sender, for the caller alone; the longest due first.
    `busy_until` is the mark of this claim."""
    with transaction.atomic():
        free = AlertChannel.objects.filter(Q(busy_until=None) | Q(busy_until__lte=now))
        due = free.filter(deliveries__due_at__lte=now).annotate(since=Min("deliveries__due_at"))
        chosen = list(due.order_by("since", "pk").values_list("pk", flat=True)[:at_most])
        locked = AlertChannel.objects.select_for_update(skip_locked=True)
        channels = list(
            locked.filter(pk__in=chosen).filter(Q(busy_until=None) | Q(busy_until__lte=now))
        )
        for channel in channels:
            channel.busy_until = now + CLAIM_LASTS
        AlertChannel.objects.bulk_update(channels, ["busy_until"])
    order = {pk: place for place, pk in enumerate(chosen)}
    return sorted(channels, key=lambda channel: order[channel.pk])


def take(channel: AlertChannel, *, now: datetime, until: datetime) -> AlertDelivery | None:
    """The next message of a claimed channel, counted as tried; None where nothing is due, or where
    the claim was lost to another sender. The claim lasts until then."""
    with transaction.atomic():
        mine = AlertChannel.objects.filter(pk=channel.pk, busy_until=channel.busy_until)
        if not mine.update(busy_until=until):
            return None
        channel.busy_until = until
        waiting = AlertDelivery.objects.filter(channel=channel, due_at__lte=now)
        delivery = (
            waiting.select_related(
                "alert",
                "credit_alert__tenant",
                "refund",
                "adjustment__tenant",
                "adjustment__grant",
                "channel",
            )
            .order_by("due_at", "pk")
            .first()
        )
        if delivery is not None:
            delivery.tries += 1
            is_last = delivery.tries >= TRIES_MAX
            delivery.due_at = None if is_last else now + FIRST_PAUSE * 3 ** (delivery.tries - 1)
            delivery.save(update_fields=["tries", "due_at"])
    return delivery


def delivered(delivery: AlertDelivery, *, now: datetime) -> None:
    delivery.delivered_at, delivery.due_at, delivery.failure = now, None, ""
    delivery.save(update_fields=["delivered_at", "due_at", "failure"])


def failed(delivery: AlertDelivery, why: str) -> None:
    delivery.failure = why[:200]
    delivery.save(update_fields=["failure"])


def release(channel: AlertChannel) -> None:
    AlertChannel.objects.filter(pk=channel.pk, busy_until=channel.busy_until).update(
        busy_until=None
    )
