"""Resolves quarantined events: a person says what the tenant pays, once, and it is posted.

Until then nothing is billed and Redis keeps what was debited. Afterwards the shard is rebuilt, so
that its registers are exact again; its tenants are refused for that moment.
"""

from datetime import datetime

import redis
from django.db import transaction

from billing import ledger, rebuild, registers
from billing.errors import CreditRefused
from billing.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.models import UsageEvent
from billing.money import PICO_PER_NANO

REVENUE = AccountKey(Kind.REVENUE)


def resolve(
    client: redis.Redis,
    *,
    event_id: int,
    tenant_pico: int,
    supplier_pico: int,
    resolved_by: str,
    now: datetime,
) -> UsageEvent:
    """Post a quarantined event at these figures; the tenant never pays more than was debited."""
    with transaction.atomic(durable=True):
        event = UsageEvent.objects.select_for_update().get(pk=event_id)
        if event.state != UsageEvent.State.QUARANTINED:
            raise CreditRefused("the event is not in quarantine")
        if not 0 <= tenant_pico <= max(event.charged_nano, 0) * PICO_PER_NANO or supplier_pico < 0:
            raise CreditRefused("a tenant pays between nothing and what was debited")
        event.transfer = ledger.post(_draft(event, tenant_pico, supplier_pico, resolved_by))
        event.state = UsageEvent.State.POSTED
        event.rated_pico = event.tenant_cost_pico = tenant_pico
        event.supplier_cost_pico = supplier_pico
        event.save()
    rebuild.rebuild(client, registers.shard_of(event.tenant_id), now=now)
    return event


def _draft(event: UsageEvent, tenant_pico: int, supplier_pico: int, resolved_by: str) -> Draft:
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
        memo=f"resolved by {resolved_by}: {event.quarantine_reason}"[:200],
    )
