"""What a price would change before it is published: rate by rate, and for whom. Read only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import Count, Sum

from billing import prices
from billing.models import ServiceTier, UsageEvent
from billing.rating import Price

LOOKED_BACK: Final = timedelta(days=30)
LABELS: Final = {
    "input_pico": "Input",
    "cache_read_pico": "Cached input",
    "cache_write_5m_pico": "Cache write, 5 min",
    "cache_write_1h_pico": "Cache write, 1 h",
    "output_pico": "Output",
    "reasoning_pico": "Reasoning",
}


@dataclass(frozen=True, slots=True)
class RateChange:
    label: str
    old_pico: int | None
    new_pico: int

    @property
    def change_percent(self) -> Decimal | None:
        if not self.old_pico:
            return None
        # In tenths of a per cent, rounded half up, without leaving the integers.
        tenths = (2_000 * (self.new_pico - self.old_pico) + self.old_pico) // (2 * self.old_pico)
        return Decimal(tenths).scaleb(-1)


@dataclass(frozen=True, slots=True)
class Preview:
    """`old_cost_pico` and `new_cost_pico`: the last 30 days' tokens at either price."""

    changes: tuple[RateChange, ...]
    version: int | None
    tenants: int
    requests: int
    old_cost_pico: int | None
    new_cost_pico: int


def preview(sku: str, rates: Mapping[str, int], *, now: datetime) -> Preview:
    """Compare `rates` with the price of the sku that is in force now."""
    current = _current(sku, now)
    used = UsageEvent.objects.filter(sku=sku, occurred_at__gte=now - LOOKED_BACK).aggregate(
        tenants=Count("tenant", distinct=True),
        requests=Count("request_id", distinct=True),
        input=Sum("input_tokens"),
        cached=Sum("cache_read_tokens"),
        output=Sum("output_tokens"),
        reasoning=Sum("reasoning_tokens"),
    )
    tokens = {name: int(used[name] or 0) for name in ("input", "cached", "output", "reasoning")}
    old = None if current is None else {name: getattr(current, name) for name in LABELS}
    return Preview(
        changes=tuple(
            RateChange(label, None if old is None else old[name], rates[name])
            for name, label in LABELS.items()
        ),
        version=None if current is None else current.version,
        tenants=used["tenants"],
        requests=used["requests"],
        old_cost_pico=None if old is None else _cost(tokens, old),
        new_cost_pico=_cost(tokens, rates),
    )


def _current(sku: str, now: datetime) -> Price | None:
    found = prices.price_at(sku, now)
    return next(
        (p for p in found if p.service_tier == ServiceTier.DEFAULT and p.context_over == 0), None
    )


def _cost(tokens: Mapping[str, int], rates: Mapping[str, int]) -> int:
    return (
        (tokens["input"] - tokens["cached"]) * rates["input_pico"]
        + tokens["cached"] * rates["cache_read_pico"]
        + (tokens["output"] - tokens["reasoning"]) * rates["output_pico"]
        + tokens["reasoning"] * rates["reasoning_pico"]
    )
