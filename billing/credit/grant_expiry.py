"""Takes back what is left of credit that has ended, once nothing of before its end is open.

The registers know an end at its moment (`ends`), so this only writes it down: what each grant paid
for, and what was lost. It waits for the requests of before the end and for their usage: so it takes
exactly what they left, once, and never what one of them holds.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, cast

import redis
from django.db import transaction

from billing import fault_isolation, locks, registers
from billing.credit import attribution
from billing.credit import balances as credit
from billing.drain import metering
from billing.errors import LockTimeout
from billing.models import CreditGrant, GrantUse, Tenant
from billing.redis.connection import connection

GrantKind = CreditGrant.Kind
# A request that has its id may be on its way to its hold for so long.
PLACED_WITHIN: Final = timedelta(seconds=10)
LOCK_WAIT_S: Final = 2.0
DRAINS_MAX: Final = 20


def expire_grants(*, now: datetime, client: redis.Redis | None = None) -> list[CreditGrant]:
    """Take back what is left of every grant whose time is over; run again, it takes nothing more.
    A tenant that cannot be served keeps no other waiting."""
    client = client or connection()
    due = attribution.unclosed().filter(expires_at__lte=now - PLACED_WITHIN)
    tenants = Tenant.objects.filter(pk__in=due.values("tenant")).order_by("pk")
    made = fault_isolation.each(
        tenants,
        lambda tenant: _expire(tenant, client, now),
        name=lambda tenant: f"ended credit of tenant {tenant.slug}",
    )
    return [grant for each in made for grant in each]


def _expire(tenant: Tenant, client: redis.Redis, now: datetime) -> list[CreditGrant]:
    shard = tenant.shard
    with locks.shard(shard, wait_s=LOCK_WAIT_S) as taken:
        if not taken:
            raise LockTimeout(f"shard {shard} is busy")
        # In this order: what was settled before the look at open holds is drained after it.
        first_open = _first_open(client, tenant)
        if not _is_drained(client, shard, now):
            return []
    return _close(tenant, until=min(now - PLACED_WITHIN, first_open), now=now)


def _first_open(client: redis.Redis, tenant: Tenant) -> datetime:
    """When the oldest of the tenant's requests that hold something was admitted."""
    tag = registers.tag_of_shard(tenant.shard)
    requests = cast(list[bytes], client.zrange(registers.leases_key(tag), 0, -1))
    with client.pipeline(transaction=False) as pipe:
        for request in requests:
            pipe.hmget(registers.hold_key(tag, request.decode()), "state", "tenant")
        found = pipe.execute()
    own = [b"open", registers.tenant_key(tag, tenant.pk).encode()]
    times = (
        registers.request_ms(request.decode())
        for request, hold in zip(requests, found, strict=True)
        if hold == own
    )
    return registers.at_moment(min(times, default=attribution.EVER_MS))


def _is_drained(client: redis.Redis, shard: int, now: datetime) -> bool:
    for _ in range(DRAINS_MAX):
        if not metering.drain(client, shard, now=now).left:
            return True
    return False


def _close(tenant: Tenant, *, until: datetime, now: datetime) -> list[CreditGrant]:
    """Write down what every grant that ended by then has paid for, and take back what it left."""
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        over = attribution.unclosed().filter(tenant=tenant, expires_at__lte=until)
        closing = set(over.values_list("pk", flat=True))
        reckoned, _ = attribution.ending(tenant)
        return [
            made
            for pot in reckoned
            if pot.grant.pk in closing
            for made in _written(tenant, pot, now)
        ]


def _written(tenant: Tenant, pot: attribution.Pot, now: datetime) -> Sequence[CreditGrant]:
    grant = pot.grant
    if used := int(grant.amount_pico) - pot.left_pico:
        GrantUse.objects.create(
            grant=grant, amount_pico=used, until=registers.at_moment(pot.ends_ms)
        )
    if not pot.left_pico:
        return ()
    lost = credit.grant(
        tenant=tenant,
        amount_pico=-pot.left_pico,
        reason=f"expired: {grant.reason}",
        created_by="expiry of credit",
        kind=GrantKind.EXPIRY,
        expires=grant,
        now=now,
    )
    return (lost,)
