"""Notices budgets that reach 50, 80 and 100 % of their limit, and queues word of it.

Reads what Redis has debited, so that a budget is known to fill up before its events are posted.
Each share is told once per window, also of a window that is over: it may have been reached in its
last seconds, or by a request that settled after it. Who delivers it is the gateway's affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

import redis
from django.db import transaction

from billing import fault_isolation, registers
from billing.models import AlertChannel, AlertDelivery, BudgetAlert, Quota, ScopeKind
from billing.money import PICO_PER_NANO

PERCENTS: Final = (50, 80, 100)
Spent = bytes | None | Exception


@dataclass(frozen=True, slots=True)
class Look:
    """A budget in one of its windows, by the limit of `at`: now, or the window's last moment."""

    quota: Quota
    span: registers.Span
    at: datetime


def notice(client: redis.Redis, *, now: datetime) -> int:
    """Write down every share that was reached since the last look; returns how many."""
    quotas = list(
        Quota.objects.exclude(scope_kind=ScopeKind.SESSION).select_related("tenant").order_by("pk")
    )
    looks = [
        look
        for own in fault_isolation.each(quotas, lambda q: _looks(q, now), name=_named)
        for look in own
    ]
    with client.pipeline(transaction=False) as pipe:
        for look in looks:
            pipe.hget(_key(look.quota, look.span.bucket), "spent")
        spent = cast(list[Spent], pipe.execute(raise_on_error=False))

    def reached(asked: tuple[Look, Spent]) -> list[BudgetAlert]:
        look, nano = asked
        if isinstance(nano, Exception):
            raise nano
        return _reached(look, int(nano or 0) * PICO_PER_NANO)

    found = fault_isolation.each(
        zip(looks, spent, strict=True), reached, name=lambda asked: _named(asked[0].quota)
    )
    return _queue([alert for alerts in found for alert in alerts], now)


def _named(quota: Quota) -> str:
    return f"budget {quota.pk} of {quota.tenant.slug}"


def _looks(quota: Quota, now: datetime) -> list[Look]:
    """The window that is now, and those that are over whose registers are still there."""
    now_ms = registers.moment_ms(now)
    span = registers.span_of(quota.window, now_ms, quota.tenant.time_zone)
    looks = [Look(quota, span, now)]
    since_ms = registers.moment_ms(quota.limit_since) if quota.limit_since else 0
    while span.begins_ms > max(now_ms - registers.WINDOW_KEPT_MS, since_ms):
        last_ms = span.begins_ms - 1
        span = registers.span_of(quota.window, last_ms, quota.tenant.time_zone)
        looks.append(Look(quota, span, registers.at_moment(last_ms)))
    return looks


def _key(quota: Quota, bucket: str) -> str:
    return registers.spend_key(
        registers.shard_tag(quota.tenant_id),
        quota.tenant_id,
        kind=quota.scope_kind,
        scope=registers.scope_part(quota.scope_id),
        bucket=bucket,
    )


def _reached(look: Look, spent_pico: int) -> list[BudgetAlert]:
    quota, limit_pico = look.quota, look.quota.limit_at(look.at)
    return [
        BudgetAlert(
            tenant_id=quota.tenant_id,
            quota_id=quota.pk,
            bucket=look.span.bucket,
            percent=percent,
            subject=str(quota),
            spent_pico=spent_pico,
            limit_pico=limit_pico,
            occurred_at=look.at,
        )
        for percent in PERCENTS
        if spent_pico and spent_pico * 100 >= limit_pico * percent
    ]


def _queue(reached: Sequence[BudgetAlert], now: datetime) -> int:
    """Those that are new, with a delivery for each channel of their tenant."""
    known = set(
        BudgetAlert.objects.filter(
            quota_id__in={each.quota_id for each in reached},
            bucket__in={each.bucket for each in reached},
        ).values_list("quota_id", "bucket", "percent")
    )
    new = [each for each in reached if (each.quota_id, each.bucket, each.percent) not in known]
    with transaction.atomic():
        BudgetAlert.objects.bulk_create(new)
        channels = AlertChannel.objects.filter(tenant_id__in={each.tenant_id for each in new})
        AlertDelivery.objects.bulk_create(
            AlertDelivery(alert=alert, channel=channel, due_at=now)
            for alert in new
            for channel in channels
            if channel.tenant_id == alert.tenant_id
        )
    return len(new)
