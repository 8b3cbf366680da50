"""Template filters over `gateway.console.figures`; None is shown as a dash, never as zero."""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django import template
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from billing import basis
from billing.invoicing.pdf import dollars as printed_dollars
from billing.money import PICO_PER_NANO, pico_from_usd
from gateway.console import figures

register = template.Library()


def _filter(name: str, show: Callable[[Any], str]) -> None:
    def shown(value: Any) -> str:
        return figures.NOTHING if value is None or value == "" else show(value)

    register.filter(name, shown)


for _name in (
    "usd_exact",
    "usd",
    "usd_left",
    "per_million",
    "per_million_exact",
    "count",
    "compact",
    "megabytes",
    "milliseconds",
    "rate",
    "percent",
):
    _filter(_name, getattr(figures, _name))


@register.filter
def basis_words(value: str) -> str:
    """Whose token counts were charged."""
    return basis.WORDS.get(value, value)


@register.filter
def confidence(value: str) -> str:
    return basis.CONFIDENCE.get(value, "")


@register.filter
def cents(value: int | None) -> str:
    """Whole cents as dollars, as on a printed invoice."""
    return figures.NOTHING if value is None else printed_dollars(value)


@register.filter
def opposite(value: int) -> int:
    """A credit as the positive figure of its column."""
    return -value


@register.filter
def age(value: datetime | str | None) -> str:
    moment = parse_datetime(value) if isinstance(value, str) else value
    return figures.NOTHING if moment is None else figures.age(moment, timezone.now())


@register.filter
def clock(value: datetime | None) -> str:
    """The time of day to the millisecond, UTC."""
    return figures.NOTHING if value is None else f"{value:%H:%M:%S}.{value.microsecond // 1000:03d}"


@register.filter
def words(value: object) -> str:
    """A code as words: client_cancelled -> client cancelled."""
    return str(value).replace("_", " ")


@register.filter
def signed_percent(value: float | None) -> str:
    """A change in per cent with its sign, one decimal place."""
    if value is None:
        return figures.NOTHING
    sign = "+" if value > 0 else figures.MINUS if value < 0 else ""
    return f"{sign}{abs(value):.1f}{figures.THIN_SPACE}%"


@register.filter
def usd_float(value: float) -> str:
    """Dollars of a chart's point."""
    return figures.per_million(value * 1e6)


@register.filter
def window_label(value: str) -> str:
    """A window's code with a space before its unit: 24h -> 24 h."""
    return f"{value[:-1]} {value[-1]}"


@register.filter
def nano_usd(nano: int) -> str:
    """What Redis counted, as exact dollars."""
    return figures.usd_exact(nano * PICO_PER_NANO)


@register.filter
def usd_text(text: str) -> str:
    """An exact decimal string of dollars, as the routing explanation holds it."""
    return figures.usd_exact(pico_from_usd(text))


@register.filter
def absolute(value: Decimal) -> Decimal:
    return abs(value)


@register.filter
def on_day(by_day: Mapping[date, int], day: date) -> int:
    return by_day.get(day, 0)


@register.filter
def name_of(names: Mapping[int, str], key: int) -> str:
    return names.get(key, str(key))
