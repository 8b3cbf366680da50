"""Counts that arrive after an expiry: what was charged to the last checkpoint is trued up.

Whose owner died is booked as unknown, up to what it had last said. Where an engine knows what it
delivered, that is settled late, by the protocol's own rule: the difference is charged, at most what
is free, and the exposure is taken back.
"""

from collections.abc import Collection
from datetime import datetime

import redis
from django.db.models import Exists, F, OuterRef, QuerySet, Window
from django.db.models.functions import RowNumber

from billing import events, rating, registers
from billing.drain.acknowledgement import epoch_of
from billing.events import AttemptDetail, AttemptEvent
from billing.holding import holds
from billing.holding.holds import SettledAttempt
from billing.models import UsageEvent
from billing.money import nano_ceil
from billing.prices import admitted_prices
from billing.prices.versions import as_price
from billing.rating import Price, PriceNotFound
from billing.redis.connection import run_warm
from billing.usage import CanonicalUsage, UsageError


def expired(*, offers: Collection[int], since: datetime) -> "QuerySet[UsageEvent]":
    """What expired at these offers since then, and was not settled after all; tenants in turn."""
    settled = UsageEvent.objects.filter(
        request_id=OuterRef("request_id"), day=OuterRef("day"), attempt=OuterRef("settled_as")
    )
    found = (
        UsageEvent.objects.filter(drained_at__gte=since, attempt__lt=0, offer_id__in=offers)
        .annotate(settled_as=-F("attempt") - 1)
        .exclude(Exists(settled))
        .select_related("price_version")
    )
    return in_turn(found, "pk")


def in_turn(found: "QuerySet[UsageEvent]", within: str) -> "QuerySet[UsageEvent]":
    """One of each tenant, then another one of each: who takes some from the front leaves nobody
    behind one tenant's many. `within` orders those of a tenant."""
    turn = Window(RowNumber(), partition_by="tenant", order_by=within)
    return found.annotate(turn=turn).order_by("turn", within)


def settle(
    client: redis.Redis, event: UsageEvent, usage: CanonicalUsage, *, basis: str, now: datetime
) -> bool:
    """Settle an expired attempt at this count; False where it has no price. Cold, or RedisError:
    nothing moved, and it may be tried again."""
    try:
        price, cost_price = prices_of(event, usage)
        rated_pico, owed_pico = rating.rate(usage, price), rating.rate(usage, cost_price)
    except (PriceNotFound, UsageError):
        return False
    body = events.encode(
        AttemptEvent(
            request_id=str(event.request_id),
            attempt=-event.attempt - 1,
            tenant=event.tenant_id,
            key=event.api_key_id or 0,
            team=event.team_id,
            session=event.session_hash,
            sku=event.sku,
            price=price.version,
            prices=(price.version,),
            service_tier=price.service_tier,
            offer=event.offer_id or 0,
            supplier=event.supplier,
            model=event.model,
            outcome=event.outcome,
            usage=usage,
            usage_source=basis,
            tenant_cost_pico=rated_pico,
            supplier_cost_pico=owed_pico,
            occurred_ms=registers.moment_ms(event.occurred_at),
            settled_ms=registers.moment_ms(now),
            detail=AttemptDetail(basis=(basis, basis)),
        )
    )
    call = holds.settle_call(
        tenant=event.tenant_id,
        request_id=str(event.request_id),
        now_ms=registers.moment_ms(now),
        attempts=[SettledAttempt(body, nano_ceil(rated_pico))],
        epoch=epoch_of(registers.shard_of(event.tenant_id)),
    )
    holds.read_settle(run_warm(client, call))
    return True


def prices_of(event: UsageEvent, usage: CanonicalUsage) -> tuple[Price, Price]:
    """What the tenant pays by the version that its checkpoint named, else by those of the moment
    of its admission; and what the supplier asks."""
    admitted = admitted_prices.of(event)
    tier = 0 if event.price_version is None else event.price_version.service_tier
    cost_price = rating.choose(
        admitted.supplier, service_tier=tier, input_tokens=usage.input_tokens
    )
    if event.price_version is not None and not event.price_version.context_over:
        return as_price(event.price_version), cost_price
    price = rating.choose(admitted.tenant, service_tier=tier, input_tokens=usage.input_tokens)
    return price, cost_price
