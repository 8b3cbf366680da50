"""Publishes and reads price versions: immutable, dated, never overlapping.

Publishing closes the version that is open; nothing is ever rewritten. What price lists make of a
list price (`lists`) is published with it, in the same transaction.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing import audit, locks
from billing.errors import PriceRefused
from billing.kinds import ServiceTier
from billing.models import PriceVersion, Sku
from billing.prices import lists as price_lists
from billing.prices import price_books
from billing.rates import ALL_DAY, Rates, Window
from billing.rating import Price

# Who made a price by hand: nothing automatic takes its place until it is withdrawn.
OPERATOR: Final = "operator"
CONTEXT_OVER_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Slot:
    """Where prices of one sku exclude each other."""

    service_tier: int = ServiceTier.DEFAULT
    context_over: int = 0
    window: Window = ALL_DAY

    def check(self) -> None:
        if self.service_tier not in set(ServiceTier):
            raise PriceRefused(f"no such service tier: {self.service_tier}")
        if type(self.context_over) is not int or not 0 <= self.context_over <= CONTEXT_OVER_MAX:
            raise PriceRefused(f"not a context threshold: {self.context_over}")
        self.window.check()

    @property
    def columns(self) -> dict[str, int]:
        return {
            "service_tier": self.service_tier,
            "context_over": self.context_over,
            "from_minute": self.window.from_minute,
            "to_minute": self.window.to_minute,
        }


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
    window: Window = ALL_DAY,
    free: bool = False,
    note: str = "",
) -> PriceVersion:
    """Publish a version from `valid_from` on; PriceRefused says what does not fit.

    The same rates again return the version that is open already. One publishes at a time.
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
    slot = Slot(service_tier, context_over, window)
    _check(sku_code, rates, slot, valid_from, free=free)
    with transaction.atomic():
        locks.prices_until_commit()
        sku, _ = Sku.objects.get_or_create(code=sku_code)
        current = _close_open(sku, slot, rates, valid_from, free=free)
        if current is not None:
            return current
        made = PriceVersion.objects.create(
            sku=sku,
            **slot.columns,
            during=DateTimeTZRange(valid_from, None, "[)"),
            free=free,
            source=source,
            note=note,
            recorded_by=recorded_by,
            **dict(rates.items()),
        )
        price_lists.follow([made])
    return made


def _check(sku_code: str, rates: Rates, slot: Slot, valid_from: datetime, *, free: bool) -> None:
    if not sku_code or len(sku_code) > 200:
        raise PriceRefused("a sku has 1 to 200 characters")
    rates.check()
    if rates.all_zero != free:
        raise PriceRefused("a price is zero if and only if it is published as free")
    slot.check()
    if valid_from.tzinfo is None:
        raise PriceRefused("the start of a price needs a time zone")


def _close_open(
    sku: Sku, slot: Slot, rates: Rates, valid_from: datetime, *, free: bool
) -> PriceVersion | None:
    """Make room from `valid_from` on; the open version itself where it says the same."""
    # Whatever was made from these prices is closed with them.
    taken = PriceVersion.objects.filter(sku=sku, **slot.columns)
    if taken.filter(during__startswith__gte=valid_from).exists():
        raise PriceRefused(f"another version begins at or after {valid_from.isoformat()}")
    standing = list(taken.filter(during__contains=valid_from))
    if any(version.during.upper is not None for version in standing):
        raise PriceRefused("the version in force then is closed already")
    for version in standing:
        if version.price_list_id is None and version.free == free and rates_of(version) == rates:
            return version
    _check_hours(sku, slot, valid_from)
    for version in standing:
        close(version, valid_from)
    return None


def _check_hours(sku: Sku, slot: Slot, valid_from: datetime) -> None:
    if slot.window.is_all_day:
        return
    others = PriceVersion.objects.filter(
        sku=sku,
        price_list=None,
        service_tier=slot.service_tier,
        context_over=slot.context_over,
        during__overlap=DateTimeTZRange(valid_from, None),
    )
    for other in others:
        window = Window(other.from_minute, other.to_minute)
        if window != slot.window and window.overlaps(slot.window):
            raise PriceRefused(f"its hours overlap with version {other.pk}, {window}")


def record_set(version: PriceVersion, *, actor: str, now: datetime) -> None:
    """Write down that a person set this price. What imports publish names its source instead."""
    rates = {name: value for name, value in rates_of(version).items() if value is not None}
    audit.record(
        actor=actor,
        action="price.set",
        subject=version.sku.code,
        after={"version": version.pk, **rates},
        reason=version.note,
        now=now,
    )


def close(version: PriceVersion, at: datetime) -> None:
    version.during = DateTimeTZRange(version.during.lower, at, "[)")
    version.save(update_fields=["during"])


def withdraw(*, sku_code: str, at: datetime, actor: str) -> int:
    """Close every open version of a sku: from then on it has no price and is not sold.

    Versions that have not begun are taken back. Returns how many list prices were closed.
    """
    with transaction.atomic():
        locks.prices_until_commit()
        versions = PriceVersion.objects.filter(sku__code=sku_code)
        coming = versions.filter(during__startswith__gte=at)
        coming.exclude(price_list=None).delete()
        coming.delete()
        closing = list(versions.filter(during__overlap=DateTimeTZRange(at, None)))
        for version in closing:
            close(version, at)
        closed = sum(version.price_list_id is None for version in closing)
        audit.record(
            actor=actor,
            action="price.withdraw",
            subject=sku_code,
            before={"versions": [version.pk for version in closing]},
            now=at,
        )
        return closed


def end_slot(*, sku_code: str, slot: Slot, at: datetime) -> int:
    """Close what is in force in one slot, on every price list; what is still to come is kept."""
    with transaction.atomic():
        locks.prices_until_commit()
        standing = PriceVersion.objects.filter(
            sku__code=sku_code, **slot.columns, during__contains=at
        )
        closing = list(standing)
        for version in closing:
            close(version, at)
    return len(closing)


def rates_of(version: PriceVersion) -> Rates:
    return Rates(**{name: getattr(version, name) for name in Rates.__slots__})


def as_price(version: PriceVersion) -> Price:
    """A version as rating sees it. Needs `sku` loaded."""
    return Price(
        version=version.pk,
        sku=version.sku.code,
        service_tier=version.service_tier,
        context_over=version.context_over,
        **dict(rates_of(version).items()),  # type: ignore[arg-type]
    )


def in_force(when: datetime) -> dict[str, tuple[Price, ...]]:
    """Every priced sku's list price at that moment, with all its tiers."""
    found = {sku: book.opening() for sku, book in price_books.books(when, when).items()}
    return {sku: prices for sku, prices in found.items() if prices}


def by_version(versions: set[int]) -> dict[int, Price]:
    """The prices of these version ids, of whatever list."""
    rows = PriceVersion.objects.filter(pk__in=versions).select_related("sku")
    return {row.pk: as_price(row) for row in rows}


def history(sku_code: str) -> list[PriceVersion]:
    """Every list price of one sku, oldest first."""
    rows = PriceVersion.objects.filter(sku__code=sku_code, price_list=None).select_related("sku")
    return list(rows.order_by("during", "service_tier", "context_over", "from_minute"))
