"""Publishes and reads price versions: immutable, dated, never overlapping.

Publishing closes the version that is open; nothing is ever rewritten. Rates are integer
pico-dollars per token; docs/pricing.md says what they mean.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import QuerySet

from billing.errors import PriceRefused
from billing.models import PriceVersion, ServiceTier, Sku
from billing.money import PICO_PER_TOKEN_PER_USD_PER_MILLION
from billing.rating import Price

# Who made a price by hand: nothing automatic takes its place until it is withdrawn.
OPERATOR: Final = "operator"
# $100,000 per million tokens: beyond any market, well within what a unit mix-up produces.
RATE_PICO_MAX: Final = 100_000 * PICO_PER_TOKEN_PER_USD_PER_MILLION
REQUEST_PICO_MAX: Final = 100 * 10**12
CONTEXT_OVER_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pico-dollars per token; None where a unit is not sold."""

    input_pico: int
    cache_read_pico: int
    cache_write_5m_pico: int
    cache_write_1h_pico: int
    output_pico: int
    reasoning_pico: int
    input_audio_pico: int | None = None
    input_image_pico: int | None = None
    output_audio_pico: int | None = None
    request_pico: int = 0

    def items(self) -> list[tuple[str, int | None]]:
        return [(name, getattr(self, name)) for name in self.__slots__]

    @property
    def all_zero(self) -> bool:
        return not any(value for _, value in self.items())


def publish(
    *,
    sku_code: str,
    input_pico: int,
    cache_read_pico: int,
    cache_write_5m_pico: int,
    cache_write_1h_pico: int,
    output_pico: int,
    reasoning_pico: int,
    valid_from: datetime,
    source: str,
    recorded_by: str,
    input_audio_pico: int | None = None,
    input_image_pico: int | None = None,
    output_audio_pico: int | None = None,
    request_pico: int = 0,
    service_tier: int = ServiceTier.DEFAULT,
    context_over: int = 0,
    free: bool = False,
    note: str = "",
) -> PriceVersion:
    """Publish a version from `valid_from` on; PriceRefused says what does not fit.

    The same rates again return the version that is open already. Locks the sku's row.
    """
    rates = Rates(
        input_pico=input_pico,
        cache_read_pico=cache_read_pico,
        cache_write_5m_pico=cache_write_5m_pico,
        cache_write_1h_pico=cache_write_1h_pico,
        output_pico=output_pico,
        reasoning_pico=reasoning_pico,
        input_audio_pico=input_audio_pico,
        input_image_pico=input_image_pico,
        output_audio_pico=output_audio_pico,
        request_pico=request_pico,
    )
    _check(sku_code, rates, service_tier, context_over, valid_from, free=free)
    with transaction.atomic():
        Sku.objects.get_or_create(code=sku_code)
        sku = Sku.objects.select_for_update().get(code=sku_code)
        slot = PriceVersion.objects.filter(
            sku=sku, service_tier=service_tier, context_over=context_over
        )
        current = _close_open(slot, rates, valid_from, free=free)
        return current or PriceVersion.objects.create(
            sku=sku,
            service_tier=service_tier,
            context_over=context_over,
            during=DateTimeTZRange(valid_from, None, "[)"),
            free=free,
            source=source,
            note=note,
            recorded_by=recorded_by,
            **dict(rates.items()),
        )


def _check(
    sku_code: str,
    rates: Rates,
    service_tier: int,
    context_over: int,
    valid_from: datetime,
    *,
    free: bool,
) -> None:
    if not sku_code or len(sku_code) > 200:
        raise PriceRefused("a sku has 1 to 200 characters")
    for name, value in rates.items():
        optional = name.endswith(("audio_pico", "image_pico"))
        if value is None and optional:
            continue
        if type(value) is not int:
            raise PriceRefused(f"{name} is not a whole number of pico-dollars: {value!r}")
        limit = REQUEST_PICO_MAX if name == "request_pico" else RATE_PICO_MAX
        if not 0 <= value <= limit:
            raise PriceRefused(f"{name} is out of bounds: {value}")
    if rates.all_zero != free:
        raise PriceRefused("a price is zero if and only if it is published as free")
    if service_tier not in ServiceTier.values:
        raise PriceRefused(f"no such service tier: {service_tier}")
    if type(context_over) is not int or not 0 <= context_over <= CONTEXT_OVER_MAX:
        raise PriceRefused(f"not a context threshold: {context_over}")
    if valid_from.tzinfo is None:
        raise PriceRefused("the start of a price needs a time zone")


def _close_open(
    slot: "QuerySet[PriceVersion]", rates: Rates, valid_from: datetime, *, free: bool
) -> PriceVersion | None:
    """Make room from `valid_from` on; the open version itself where it says the same."""
    if slot.filter(during__startswith__gte=valid_from).exists():
        raise PriceRefused(f"another version begins at or after {valid_from.isoformat()}")
    current = slot.filter(during__contains=valid_from).first()
    if current is None:
        return None
    if current.during.upper is not None:
        raise PriceRefused("the version in force then is closed already")
    if current.free == free and all(
        getattr(current, name) == value for name, value in rates.items()
    ):
        return current
    current.during = DateTimeTZRange(current.during.lower, valid_from, "[)")
    current.save(update_fields=["during"])
    return None


def withdraw(*, sku_code: str, at: datetime) -> int:
    """Close every open version of a sku: from then on it has no price and is not sold."""
    with transaction.atomic():
        sku = Sku.objects.select_for_update().get(code=sku_code)
        current = PriceVersion.objects.filter(sku=sku, during__startswith__lt=at)
        closing = [version for version in current if version.during.upper is None]
        for version in closing:
            version.during = DateTimeTZRange(version.during.lower, at, "[)")
            version.save(update_fields=["during"])
        return len(closing)


def as_price(version: PriceVersion) -> Price:
    """A version as rating sees it. Needs `sku` loaded."""
    return Price(
        version=version.pk,
        sku=version.sku.code,
        service_tier=version.service_tier,
        context_over=version.context_over,
        input_pico=version.input_pico,
        cache_read_pico=version.cache_read_pico,
        cache_write_5m_pico=version.cache_write_5m_pico,
        cache_write_1h_pico=version.cache_write_1h_pico,
        output_pico=version.output_pico,
        reasoning_pico=version.reasoning_pico,
        input_audio_pico=version.input_audio_pico,
        input_image_pico=version.input_image_pico,
        output_audio_pico=version.output_audio_pico,
        request_pico=version.request_pico,
    )


def price_at(sku_code: str, when: datetime) -> tuple[Price, ...]:
    """Every tier of one sku in force at that moment; empty where it had no price."""
    rows = PriceVersion.objects.filter(sku__code=sku_code, during__contains=when)
    return tuple(as_price(row) for row in _ordered(rows))


def in_force(when: datetime) -> dict[str, tuple[Price, ...]]:
    """Every priced sku at that moment, with all its tiers."""
    found: dict[str, list[Price]] = defaultdict(list)
    for row in _ordered(PriceVersion.objects.filter(during__contains=when)):
        found[row.sku.code].append(as_price(row))
    return {code: tuple(rows) for code, rows in found.items()}


def by_version(versions: set[int]) -> dict[int, Price]:
    rows = PriceVersion.objects.filter(pk__in=versions).select_related("sku")
    return {row.pk: as_price(row) for row in rows}


def history(sku_code: str) -> list[PriceVersion]:
    """Every version of one sku, oldest first."""
    rows = PriceVersion.objects.filter(sku__code=sku_code).select_related("sku")
    return list(rows.order_by("during", "service_tier", "context_over"))


def _ordered(rows: "QuerySet[PriceVersion]") -> "QuerySet[PriceVersion]":
    return rows.select_related("sku").order_by("sku_id", "service_tier", "context_over")
