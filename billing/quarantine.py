"""Resolves quarantined events: a person says what the tenant pays, once, and it is posted.

Until then nothing is billed and Redis keeps what was debited. Afterwards the shard is rebuilt, so
that its registers are exact again; its tenants are refused for that moment.
"""

from collections.abc import Sequence
from datetime import datetime

import redis
from django.db import transaction

from billing import audit, ledger, rebuild, registers
from billing.errors import CreditRefused, LockTimeout
from billing.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.models import UsageEvent
from billing.money import PICO_PER_NANO

REVENUE = AccountKey(Kind.REVENUE)


def resolve_all(
    client: redis.Redis,
    *,
    event_ids: Sequence[int],
    tenant_pico: int,
    supplier_pico: int,
    resolved_by: str,
    reason: str,
    now: datetime,
) -> list[UsageEvent]:
    """Post quarantined events at these figures each, or none of them; a tenant never pays more
    than was debited. RedisError: they are posted, and the registers are off until a rebuild."""
    if not reason.strip():
        raise CreditRefused("a decision needs a reason")
    with transaction.atomic(durable=True):
        events = list(
            UsageEvent.objects.select_for_update(of=("self",))
            .select_related("tenant")
            .filter(pk__in=event_ids)
            .order_by("pk")
        )
        if len(events) != len(set(event_ids)):
            raise CreditRefused("no such event")
        for event in events:
            _post(event, tenant_pico, supplier_pico, memo=f"{resolved_by}: {reason}"[:200])
            audit.record(
                actor=resolved_by,
                action="event.resolve",
                subject=f"request {event.request_id}, attempt {event.attempt}",
                tenant=event.tenant,
                before={"charged_nano": event.charged_nano},
                after={"tenant_pico": tenant_pico, "supplier_pico": supplier_pico},
                reason=reason,
                now=now,
            )
    for shard in sorted({registers.shard_of(event.tenant_id) for event in events}):
        _rebuild(client, shard, now)
    return events


def _post(event: UsageEvent, tenant_pico: int, supplier_pico: int, *, memo: str) -> None:
    if event.state != UsageEvent.State.QUARANTINED:
        raise CreditRefused("the event is not in quarantine")
    if not 0 <= tenant_pico <= max(event.charged_nano, 0) * PICO_PER_NANO or supplier_pico < 0:
        raise CreditRefused("a tenant pays between nothing and what was debited")
    event.transfer = ledger.post(_draft(event, tenant_pico, supplier_pico, memo))
    event.state = UsageEvent.State.POSTED
    event.rated_pico = event.tenant_cost_pico = tenant_pico
    event.supplier_cost_pico = supplier_pico
    event.save()


def _rebuild(client: redis.Redis, shard: int, now: datetime) -> None:
    try:
        rebuild.rebuild(client, shard, now=now)
    except LockTimeout:
        # Cold, the shard is rebuilt by the next drain that gets the lock.
        client.delete(registers.epoch_key(registers.tag_of_shard(shard)))


def _draft(event: UsageEvent, tenant_pico: int, supplier_pico: int, memo: str) -> Draft:
    credit = AccountKey(Kind.TENANT_CREDIT, event.tenant_id)
    cost = AccountKey(Kind.COST_OF_SALES, supplier=event.supplier)
    payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier=event.supplier)
    return Draft(
        code=Code.USAGE,
        legs=(
            Leg(credit, tenant_pico),
            Leg(REVENUE, -tenant_pico),
            Leg(cost, supplier_pico),
            Leg(payable, -supplier_pico),
        ),
        idempotency_key=f"usage:{event.request_id}:{event.attempt}",
        tenant_id=event.tenant_id,
        memo=memo,
    )
