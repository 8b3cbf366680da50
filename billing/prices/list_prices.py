"""Reads of list prices for boards and pages: what is in force, and how it came about."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from billing.kinds import ServiceTier
from billing.models import PriceVersion
from billing.prices.price_spans import minute_of
from billing.rates import Window


@dataclass(frozen=True, slots=True)
class ListPrice:
    """The default tier's price of a sku at the lowest context, in pico-dollars per token."""

    sku: str
    version: int
    since: datetime
    until: datetime | None
    source: str
    note: str
    recorded_by: str
    free: bool
    input_pico: int
    cache_read_pico: int
    output_pico: int
    request_pico: int
    window: Window


FACTS = (
    "source",
    "note",
    "recorded_by",
    "free",
    "input_pico",
    "cache_read_pico",
    "output_pico",
    "request_pico",
)


def in_force(when: datetime, skus: Collection[str] | None = None) -> dict[str, ListPrice]:
    """The list price of each sku (all, or these) at a moment, its hour considered."""
    found: dict[str, ListPrice] = {}
    for price in _read(Q(during__contains=when), skus):
        if price.window.contains(minute_of(when)) and (
            price.sku not in found or found[price.sku].window.is_all_day
        ):
            found[price.sku] = price
    return found


def standing(when: datetime, sku: str) -> list[ListPrice]:
    """One sku's list prices on that day: all day's and those of some hours."""
    return _read(Q(during__contains=when), [sku])


def history(since: datetime, skus: Collection[str] | None = None) -> dict[str, list[ListPrice]]:
    """Every list price that was in force all day at any time since, oldest first, by sku."""
    found: dict[str, list[ListPrice]] = {}
    all_day = Q(from_minute=0, to_minute=0)
    lasting = Q(during__endswith=None) | Q(during__endswith__gt=since)
    for price in _read(all_day & lasting, skus):
        found.setdefault(price.sku, []).append(price)
    return found


def before(prices: Iterable[ListPrice]) -> dict[str, ListPrice]:
    """What each of these prices replaced, by sku; nothing where it was the first."""
    replaced = Q(pk__in=())
    for price in prices:
        replaced |= Q(sku__code=price.sku, during__endswith=price.since)
    return {price.sku: price for price in _read(replaced & Q(from_minute=0, to_minute=0), None)}


def changed_since(when: datetime) -> list[str]:
    """The skus with a price recorded since."""
    recorded = PriceVersion.objects.filter(recorded_at__gte=when, price_list=None)
    return list(recorded.values_list("sku__code", flat=True).distinct())


def _read(condition: Q, skus: Collection[str] | None) -> list[ListPrice]:
    versions = PriceVersion.objects.filter(
        condition, price_list=None, service_tier=ServiceTier.DEFAULT, context_over=0
    )
    if skus is not None:
        versions = versions.filter(sku__code__in=skus)
    rows = versions.order_by("sku", "during").values_list(
        "sku__code", "pk", "during", "from_minute", "to_minute", *FACTS
    )
    return [
        ListPrice(
            sku=sku,
            version=pk,
            since=during.lower,
            until=during.upper,
            window=Window(from_minute, to_minute),
            **dict(zip(FACTS, facts, strict=True)),
        )
        for sku, pk, during, from_minute, to_minute, *facts in rows
    ]
