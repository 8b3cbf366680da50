"""Reads of list prices for boards and pages: what is in force, and how it came about."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from billing.models import PriceVersion, ServiceTier


@dataclass(frozen=True, slots=True)
class ListPrice:
    """The default tier's price of a sku at the lowest context, in pico-dollars per token."""

    sku: str
    version: int
    since: datetime
    until: datetime | None
    source: str
    free: bool
    input_pico: int
    cache_read_pico: int
    output_pico: int
    request_pico: int


FIELDS = (
    "sku__code", "pk", "during", "source", "free", "input_pico", "cache_read_pico",
    "output_pico", "request_pico",
)  # fmt: skip


def in_force(when: datetime, skus: Collection[str] | None = None) -> dict[str, ListPrice]:
    """The list price of each sku (all, or these) at a moment."""
    return {price.sku: price for price in _read(Q(during__contains=when), skus)}


def history(since: datetime, skus: Collection[str] | None = None) -> dict[str, list[ListPrice]]:
    """Every list price that was in force at any time since, oldest first, by sku."""
    found: dict[str, list[ListPrice]] = {}
    for price in _read(Q(during__endswith=None) | Q(during__endswith__gt=since), skus):
        found.setdefault(price.sku, []).append(price)
    return found


def changed_since(when: datetime) -> list[str]:
    """The skus with a price recorded since."""
    recorded = PriceVersion.objects.filter(recorded_at__gte=when)
    return list(recorded.values_list("sku__code", flat=True).distinct())


def _read(condition: Q, skus: Collection[str] | None) -> list[ListPrice]:
    versions = PriceVersion.objects.filter(
        condition, service_tier=ServiceTier.DEFAULT, context_over=0
    )
    if skus is not None:
        versions = versions.filter(sku__code__in=skus)
    return [
        ListPrice(sku, pk, during.lower, during.upper, *rest)
        for sku, pk, during, *rest in versions.order_by("sku", "during").values_list(*FIELDS)
    ]
