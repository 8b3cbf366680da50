"""Template filters over `gateway.console.figures`; None is shown as a dash, never as zero."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from gateway.console import figures

register = template.Library()


def _filter(name: str, show: Callable[[Any], str]) -> None:
    def shown(value: Any) -> str:
        return figures.NOTHING if value is None or value == "" else show(value)

    register.filter(name, shown)


for _name in (
    "usd_exact",
    "usd",
    "per_million",
    "per_million_exact",
    "count",
    "compact",
    "milliseconds",
    "rate",
    "percent",
):
    _filter(_name, getattr(figures, _name))


@register.filter
def age(value: datetime | str | None) -> str:
    moment = parse_datetime(value) if isinstance(value, str) else value
    return figures.NOTHING if moment is None else figures.age(moment, timezone.now())


@register.filter
def clock(value: datetime | None) -> str:
    """The time of day to the millisecond, UTC."""
    return figures.NOTHING if value is None else f"{value:%H:%M:%S}.{value.microsecond // 1000:03d}"


@register.filter
def words(value: str) -> str:
    """A code as words: client_cancelled -> client cancelled."""
    return value.replace("_", " ")


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
