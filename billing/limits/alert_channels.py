"""Where a tenant is told of its money: mail addresses and webhooks, named and taken away."""

from datetime import datetime
from typing import Final

from django.db import transaction

from billing import audit
from billing.errors import LimitRefused
from billing.models import AlertChannel, Tenant

CHANNELS_MAX: Final = 10
TARGET_LENGTH_MAX: Final = 300


def add(*, tenant: Tenant, kind: str, target: str, actor: str, now: datetime) -> AlertChannel:
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


def remove(*, tenant: Tenant, channel_id: int, actor: str, now: datetime) -> None:
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
