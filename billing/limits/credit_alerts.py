"""Credit that falls below the sum a tenant named: noticed once per fall, queued for its channels.

Left is credit less what Redis has debited; what open requests hold is not taken off, for most of it
comes back. After a fall nothing is told until somebody has added credit and enough is left.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, cast

import redis
from django.db import transaction

from billing import audit, fault_isolation, registers
from billing.credit import credit_ends
from billing.errors import LimitRefused
from billing.models import AlertChannel, AlertDelivery, CreditAlert, CreditThreshold, Tenant
from billing.money import PICO_PER_NANO, PICO_PER_USD

REGISTER: Final = ("credit", "version", "spent", "pico", "held", *credit_ends.FIELDS)
BELOW_PICO_MAX: Final = 1_000_000 * PICO_PER_USD
Register = Sequence[bytes | None] | Exception


def set_threshold(*, tenant: Tenant, below_pico: int | None, actor: str, now: datetime) -> None:
    """Tell this tenant when less is left, or never (None). Credit that is low already is told."""
    if below_pico is not None and not 0 < below_pico <= BELOW_PICO_MAX:
        raise LimitRefused(f"a threshold lies above 0 and at most at {BELOW_PICO_MAX}")
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        before = threshold_pico(tenant)
        if before == below_pico:
            return
        CreditThreshold.objects.filter(tenant=tenant).delete()
        if below_pico is not None:
            CreditThreshold.objects.create(tenant=tenant, below_pico=below_pico)
        audit.record(
            actor=actor,
            action="alert_credit.set",
            subject=str(tenant),
            tenant=tenant,
            before={"below_pico": before},
            after={"below_pico": below_pico},
            now=now,
        )


def threshold_pico(tenant: Tenant) -> int | None:
    known = CreditThreshold.objects.filter(tenant=tenant).first()
    return None if known is None else int(known.below_pico)


def notice(client: redis.Redis, *, now: datetime) -> int:
    """Write down whose credit has fallen since the last look; returns how many."""
    thresholds = list(CreditThreshold.objects.select_related("tenant").order_by("pk"))
    with client.pipeline(transaction=False) as pipe:
        for threshold in thresholds:
            tag = registers.shard_tag(threshold.tenant_id)
            key = registers.tenant_key(tag, threshold.tenant_id)
            pipe.hmget(key, *REGISTER)
        found = cast(list[Register], pipe.execute(raise_on_error=False))

    def judge(pair: tuple[CreditThreshold, Register]) -> bool:
        threshold, register = pair
        if isinstance(register, Exception):
            raise register
        # A register that is not there yet says nothing; the rebuild writes it.
        return register[0] is not None and _judge(threshold, register, now)

    pairs = zip(thresholds, found, strict=True)
    return sum(fault_isolation.each(pairs, judge, name=lambda pair: pair[0].tenant.slug))


def _judge(threshold: CreditThreshold, register: Sequence[bytes | None], now: datetime) -> bool:
    """Whether the credit fell just now."""
    credit, version, spent, pico, held = (int(value or 0) for value in register[:5])
    ended = credit_ends.ended_nano(
        *register[5:], used_nano=spent + held, now_ms=registers.moment_ms(now)
    )
    left_pico = (credit - ended - spent) * PICO_PER_NANO - pico
    told = threshold.told_version
    if left_pico >= threshold.below_pico:
        if told is not None and version > told:
            CreditThreshold.objects.filter(pk=threshold.pk).update(told_version=None)
        return False
    if told is not None:
        return False
    with transaction.atomic():
        CreditThreshold.objects.filter(pk=threshold.pk).update(told_version=version)
        alert = CreditAlert.objects.create(
            tenant=threshold.tenant,
            below_pico=threshold.below_pico,
            left_pico=left_pico,
            occurred_at=now,
        )
        AlertDelivery.objects.bulk_create(
            AlertDelivery(credit_alert=alert, channel=channel, due_at=now)
            for channel in AlertChannel.objects.filter(tenant=threshold.tenant)
        )
    return True
