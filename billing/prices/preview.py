"""What a price would change before it is published: rate by rate, and for whom. Read only."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import Count, Sum

from billing import rating
from billing.models import PriceVersion, UsageDay
from billing.prices import versions as prices
from billing.prices.versions import Slot
from billing.rates import Rates
from billing.rating import Price
from billing.usage import CanonicalUsage, UsageError

LOOKED_BACK: Final = timedelta(days=30)
LABELS: Final = {
    "input_pico": "Input",
    "cache_read_pico": "Cached input",
    "cache_write_5m_pico": "Cache write, 5 min",
    "cache_write_1h_pico": "Cache write, 1 h",
    "output_pico": "Output",
    "reasoning_pico": "Reasoning",
    "input_audio_pico": "Audio input",
    "input_image_pico": "Image input",
    "output_audio_pico": "Audio output",
}


@dataclass(frozen=True, slots=True)
class RateChange:
    label: str
    old_pico: int | None
    new_pico: int | None

    @property
    def change_percent(self) -> Decimal | None:
        if not self.old_pico or self.new_pico is None:
            return None
        # In tenths of a per cent, rounded half up, without leaving the integers.
        tenths = (2_000 * (self.new_pico - self.old_pico) + self.old_pico) // (2 * self.old_pico)
        return Decimal(tenths).scaleb(-1)


@dataclass(frozen=True, slots=True)
class Preview:
    """`requests` are attempts at it. `old_cost_pico` and `new_cost_pico`: the last 30 days' tokens
    at either price; None where there was none, or where it has no rate for a unit that was used."""

    changes: tuple[RateChange, ...]
    version: int | None
    tenants: int
    requests: int
    old_cost_pico: int | None
    new_cost_pico: int | None


def preview(sku: str, slot: Slot, rates: Rates, *, now: datetime) -> Preview:
    """Compare `rates` with the list price of this slot that is in force now."""
    rows = PriceVersion.objects.filter(sku__code=sku, price_list=None, **slot.columns)
    current = rows.filter(during__contains=now).select_related("sku").first()
    old = None if current is None else prices.rates_of(current)
    used = UsageDay.objects.filter(
        sku=sku,
        day__gte=(now - LOOKED_BACK).date(),
        price_version__service_tier=slot.service_tier,
        price_version__context_over=slot.context_over,
    ).aggregate(
        tenants=Count("tenant", distinct=True),
        calls=Sum("attempts", default=0),
        **{name: Sum(name) for name in CanonicalUsage.__struct_fields__},
    )
    usage = CanonicalUsage(
        **{name: int(used[name] or 0) for name in CanonicalUsage.__struct_fields__}
    )
    return Preview(
        changes=tuple(
            RateChange(label, None if old is None else getattr(old, name), getattr(rates, name))
            for name, label in LABELS.items()
            if getattr(rates, name) is not None or getattr(old, name, None) is not None
        ),
        version=None if current is None else current.pk,
        tenants=used["tenants"],
        requests=int(used["calls"]),
        old_cost_pico=None if old is None else _cost(usage, int(used["calls"]), old),
        new_cost_pico=_cost(usage, int(used["calls"]), rates),
    )


def _cost(usage: CanonicalUsage, requests: int, rates: Rates) -> int | None:
    price = Price(version=0, sku="", **dict(rates.items()))  # type: ignore[arg-type]
    try:
        return rating.rate(usage, price) + (requests - 1) * price.request_pico
    except UsageError:
        return None
