"""A realistic stream of settled attempts, appended as the settle script appends them.

Many tenants with a few keys each, popular and rare offers with two context tiers, cached input,
reasoning, attempts that failed and were tried elsewhere, the routing explanation on each first
attempt, and a spend cap on every second key. The registers are debited as the scripts would have.
"""

import random
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis

from billing import events, rating, registers
from billing.events import AttemptDetail, AttemptEvent
from billing.money import nano_ceil
from billing.rating import Price
from billing.usage import CanonicalUsage

KEYS_PER_TENANT: Final = 5
FAILED_OF_100: Final = 4
PIPELINE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Market:
    """What the stream needs to know of the database."""

    tenants: tuple[int, ...]
    prices: dict[str, tuple[Price, ...]]  # by sku, every context tier
    offers: dict[str, int]  # by sku


def fill(redis_url: str, market: Market, *, events_wanted: int, now_ms: int, seed: int) -> None:
    """Append this many events to the tenants' streams, and debit them."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    debited: dict[str, int] = defaultdict(int)
    with redis.Redis.from_url(redis_url) as client:
        pipe = client.pipeline(transaction=False)
        for number, (tenant, fields) in enumerate(_entries(market, events_wanted, now_ms, chance)):
            tag = registers.shard_tag(tenant)
            pipe.xadd(registers.stream_key(tag), fields)
            for key in (fields["t"], *str(fields["k"]).split()):
                debited[key] += int(fields["c"])
            if number % PIPELINE == PIPELINE - 1:
                pipe.execute()
        for key, nano in debited.items():
            pipe.hincrby(key, "spent", nano)
        pipe.execute()


def _entries(
    market: Market, wanted: int, now_ms: int, chance: random.Random
) -> Iterator[tuple[int, dict[Any, Any]]]:
    skus = list(market.prices)
    popularity = [1 / (place + 1) for place in range(len(skus))]
    made = 0
    while made < wanted:
        tenant = chance.choice(market.tenants)
        request_id = _request_id(now_ms + made // 20, chance)
        attempts = 2 if chance.randrange(100) < FAILED_OF_100 else 1
        for number, sku in enumerate(chance.choices(skus, popularity, k=attempts), start=1):
            event = _event(market, tenant, request_id, number, sku, chance, paid=number == attempts)
            yield tenant, _fields(event)
            made += 1


def _event(
    market: Market,
    tenant: int,
    request_id: str,
    number: int,
    sku: str,
    chance: random.Random,
    *,
    paid: bool,
) -> AttemptEvent:
    prices = market.prices[sku]
    supplier, _, model = sku.partition("/")
    usage = _usage(chance) if paid else None
    price = None
    cost_pico = 0
    if usage is not None:
        price = rating.choose(prices, service_tier=0, input_tokens=usage.input_tokens)
        cost_pico = rating.rate(usage, price)
    at_ms = registers.request_ms(request_id)
    key = tenant * 100 + chance.randrange(KEYS_PER_TENANT)
    return AttemptEvent(
        request_id=request_id,
        attempt=number,
        tenant=tenant,
        key=key,
        team=key // 2,
        sku=sku,
        price=None if price is None else price.version,
        prices=tuple(price.version for price in prices),
        offer=market.offers[sku],
        supplier=supplier,
        model=model,
        outcome="ok" if paid else "upstream_error",
        usage=usage,
        usage_source="provider" if paid else "none",
        billable=paid,
        tenant_cost_pico=cost_pico,
        supplier_cost_pico=cost_pico * 9 // 10,
        occurred_ms=at_ms,
        settled_ms=at_ms + 1_400,
        detail=_detail(sku, ranked=number == 1, paid=paid),
    )


def _usage(chance: random.Random) -> CanonicalUsage:
    entered = int(chance.lognormvariate(6.5, 1.2)) + 1
    output = int(chance.lognormvariate(5.3, 1.0)) + 1
    return CanonicalUsage(
        input_tokens=entered,
        output_tokens=output,
        cache_read_tokens=entered // 2 if chance.randrange(3) == 0 else 0,
        reasoning_tokens=output // 3 if chance.randrange(5) == 0 else 0,
    )


def _detail(sku: str, *, ranked: bool, paid: bool) -> AttemptDetail:
    return AttemptDetail(
        surface="openai_chat",
        stream=True,
        policy="cheapest",
        status=200 if paid else 503,
        finish_reason="stop" if paid else "",
        ttft_ms=212.4,
        e2e_ms=1_391.8,
        output_tps=61.2,
        upstream_id="chatcmpl-9f3c2e61a0b847d5",
        ranking=_ranking(sku) if ranked else None,
    )


def _ranking(sku: str) -> dict[str, object]:
    row = {"offer": sku, "provider": sku.partition("/")[0], "expected_usd": "0.000153228"}
    row |= {"greatest_usd": "0.012288", "why": "expected cost of this request"}
    return {
        "model": sku.partition("/")[2],
        "policy": "cheapest",
        "expected_tokens": {"input": 1024, "output": 256},
        "candidates": [{"rank": rank, **row, "score": 153.2 * rank} for rank in (1, 2, 3)],
        "rejections": [],
    }


def _fields(event: AttemptEvent) -> dict[Any, Any]:
    tag = registers.shard_tag(event.tenant)
    cap = ""
    if event.key % 2:
        span = registers.span_of(registers.DAY, registers.request_ms(event.request_id))
        cap = registers.spend_key(
            tag, event.tenant, kind="key", scope=str(event.key), bucket=span.bucket
        )
    debit_nano = nano_ceil(event.tenant_cost_pico)
    return {
        "t": registers.tenant_key(tag, event.tenant),
        "e": events.encode(event),
        "c": debit_nano,
        "h": max(2 * debit_nano, 1_000),
        "o": 0,
        "k": cap,
        "l": 0,
    }


def _request_id(at_ms: int, chance: random.Random) -> str:
    value = at_ms << 80 | 0x7 << 76 | 0x2 << 62 | chance.getrandbits(62)
    return str(uuid.UUID(int=value))
