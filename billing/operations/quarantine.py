"""Resolves quarantined events: a person says what the tenant pays, once, and it is posted.

Until then nothing is billed and Redis keeps what was debited. Whom nobody decides in time is
settled at the estimate. Afterwards the shard is rebuilt, so that its registers are exact again; its
tenants are refused for that moment.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import redis
from django.db import transaction

from billing import audit, fault_isolation, registers
from billing.books import ledger
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.errors import CreditRefused, LockTimeout
from billing.models import UsageEvent
from billing.money import PICO_PER_NANO
from billing.operations import rebuild, recount

REVENUE = AccountKey(Kind.REVENUE)
OVERDUE_OF_SHARD_MAX: Final = 500  # in a run
NOBODY: Final = "the house"


class Decision(NamedTuple):
    """What the tenant pays for one event, and what its supplier bills."""

    tenant_pico: int
    supplier_pico: int


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
    decisions = dict.fromkeys(event_ids, Decision(tenant_pico, supplier_pico))
    return _resolve(client, decisions, resolved_by=resolved_by, reason=reason, now=now)


def settle_overdue(client: redis.Redis, *, after: timedelta, now: datetime) -> int:
    """Post at their estimates the events that nobody decided for so long; returns how many. A
    shard that cannot be served is told of when the others were, and tried again by the next run."""
    overdue = UsageEvent.objects.filter(
        state=UsageEvent.State.QUARANTINED, drained_at__lte=now - after
    )
    reason = f"at the estimate: nobody decided within {after.days} days"

    def settle(shard: int) -> int:
        tenants = [tenant for tenant in waiting if registers.shard_of(tenant) == shard]
        events = overdue.filter(tenant__in=tenants).order_by("pk")[:OVERDUE_OF_SHARD_MAX]
        decisions = {event.pk: _at_estimate(event) for event in events}
        return len(_resolve(client, decisions, resolved_by=NOBODY, reason=reason, now=now))

    waiting = list(overdue.order_by("tenant").values_list("tenant", flat=True).distinct())
    shards = sorted({registers.shard_of(tenant) for tenant in waiting})
    return sum(fault_isolation.each(shards, settle, name=lambda shard: f"shard {shard}"))


def _at_estimate(event: UsageEvent) -> Decision:
    """Never more than was debited; nothing where nobody knows what it was."""
    found = recount.suggestion(event)
    if found is None:
        return Decision(0, 0)
    debited_pico = max(event.charged_nano, 0) * PICO_PER_NANO
    return Decision(min(found.cost_pico or 0, debited_pico), found.supplier_pico or 0)


def _resolve(
    client: redis.Redis,
    decisions: Mapping[int, Decision],
    *,
    resolved_by: str,
    reason: str,
    now: datetime,
) -> list[UsageEvent]:
    if not reason.strip():
        raise CreditRefused("a decision needs a reason")
    with transaction.atomic(durable=True):
        events = list(
            UsageEvent.objects.select_for_update(of=("self",))
            .select_related("tenant")
            .filter(pk__in=decisions)
            .order_by("pk")
        )
        if len(events) != len(decisions):
            raise CreditRefused("no such event")
        for event in events:
            decision = decisions[event.pk]
            _post(event, *decision, memo=f"{resolved_by}: {reason}"[:200])
            audit.record(
                actor=resolved_by,
                action="event.resolve",
                subject=f"request {event.request_id}, attempt {event.attempt}",
                tenant=event.tenant,
                before={"charged_nano": event.charged_nano},
                after=decision._asdict(),
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
