"""Notices budgets that reach 50, 80 and 100 % of their limit, and queues word of it.

Reads what Redis has debited, so that a budget is known to fill up before its events are posted.
Each share is told once per window. Who delivers it is the gateway's affair.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast

import redis
from django.db import transaction

from billing import apart, audit, registers
from billing.errors import LimitRefused
from billing.models import AlertChannel, AlertDelivery, BudgetAlert, Quota, ScopeKind, Tenant
from billing.money import PICO_PER_NANO

PERCENTS: Final = (50, 80, 100)
CHANNELS_MAX: Final = 10
TARGET_LENGTH_MAX: Final = 300
Spent = bytes | None | Exception


def notice(client: redis.Redis, *, now: datetime) -> int:
    """Write down every share that was reached since the last look; returns how many."""
    quotas = list(
        Quota.objects.exclude(scope_kind=ScopeKind.SESSION).select_related("tenant").order_by("pk")
    )
    spans = apart.each(quotas, lambda quota: (quota, _span(quota, now)), name=_named)
    with client.pipeline(transaction=False) as pipe:
        for quota, span in spans:
            pipe.hget(_key(quota, span.bucket), "spent")
        spent = cast(list[Spent], pipe.execute(raise_on_error=False))

    def reached(asked: tuple[tuple[Quota, registers.Span], Spent]) -> list[BudgetAlert]:
        (quota, span), nano = asked
        if isinstance(nano, Exception):
            raise nano
        return _reached(quota, span.bucket, int(nano or 0) * PICO_PER_NANO, now)

    found = apart.each(
        zip(spans, spent, strict=True), reached, name=lambda asked: _named(asked[0][0])
    )
    return _queue([alert for alerts in found for alert in alerts], now)


def _named(quota: Quota) -> str:
    return f"budget {quota.pk} of {quota.tenant.slug}"


def _span(quota: Quota, now: datetime) -> registers.Span:
    now_ms = int(now.timestamp()) * 1000
    return registers.span_of(quota.window, now_ms, quota.tenant.time_zone)


def _key(quota: Quota, bucket: str) -> str:
    return registers.spend_key(
        registers.shard_tag(quota.tenant_id),
        quota.tenant_id,
        kind=quota.scope_kind,
        scope=registers.scope_part(quota.scope_id),
        bucket=bucket,
    )


def _reached(quota: Quota, bucket: str, spent_pico: int, now: datetime) -> list[BudgetAlert]:
    limit_pico = quota.limit_at(now)
    return [
        BudgetAlert(
            tenant_id=quota.tenant_id,
            quota_id=quota.pk,
            bucket=bucket,
            percent=percent,
            subject=str(quota),
            spent_pico=spent_pico,
            limit_pico=limit_pico,
            occurred_at=now,
        )
        for percent in PERCENTS
        if spent_pico and spent_pico * 100 >= limit_pico * percent
    ]


def _queue(reached: Sequence[BudgetAlert], now: datetime) -> int:
    """Those that are new, with a delivery for each channel of their tenant."""
    known = set(
        BudgetAlert.objects.filter(quota_id__in={each.quota_id for each in reached}).values_list(
            "quota_id", "bucket", "percent"
        )
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


def add_channel(
    *, tenant: Tenant, kind: str, target: str, actor: str, now: datetime
) -> AlertChannel:
    """Tell somebody of this tenant's budgets from now on. The gateway has checked the target."""
    if kind not in AlertChannel.Kind.values or not 0 < len(target) <= TARGET_LENGTH_MAX:
        raise LimitRefused("a notification goes to a mail address or a webhook")
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        if AlertChannel.objects.filter(tenant=tenant).count() >= CHANNELS_MAX:
            raise LimitRefused(f"a tenant has at most {CHANNELS_MAX} notifications")
        channel, is_new = AlertChannel.objects.get_or_create(
            tenant=tenant,
            kind=kind,
            target=target,
            defaults={"created_by": actor, "created_at": now},
        )
        if is_new:
            audit.record(
                actor=actor,
                action="alert_channel.add",
                subject=str(channel),
                tenant=tenant,
                after={"kind": kind, "target": target},
                now=now,
            )
    return channel


def remove_channel(*, tenant: Tenant, channel_id: int, actor: str, now: datetime) -> None:
    with transaction.atomic():
        channel = AlertChannel.objects.filter(tenant=tenant, pk=channel_id).first()
        if channel is None:
            raise LimitRefused("there is no such notification any more")
        audit.record(
            actor=actor,
            action="alert_channel.remove",
            subject=str(channel),
            tenant=tenant,
            before={"kind": channel.kind, "target": channel.target},
            now=now,
        )
        channel.delete()
