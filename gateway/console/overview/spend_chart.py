"""Spend by day and model as stacked bars: own offers first, then by cost, small ones together."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, TypedDict

from billing.books.usage_sums import DaySpend
from gateway.console.overview.forecast import Forecast

IN_HOUSE: Final = "in-house"
SERIES_MAX: Final = 6
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of the chart and one column of the table under it."""

    name: str
    colour: int
    by_day: dict[date, int]

    @property
    def total_pico(self) -> int:
        return sum(self.by_day.values())


class DrawnSeries(TypedDict):
    """Dollars per day, as floats: pixels, not money."""

    name: str
    colour: int
    actual: list[float | None]
    forecast: list[float | None]


class SpendChart(TypedDict):
    """What js/charts/spend.js draws."""

    days: list[str]
    series: list[DrawnSeries]


def series_of(spends: Iterable[DaySpend]) -> list[Series]:
    """In-house first, so that it keeps the first colour; then the dearest models."""
    sums: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for spend in spends:
        sums[_name(spend)][spend.day] += spend.cost_pico
    names = sorted(sums, key=lambda n: (not n.startswith(IN_HOUSE), -sum(sums[n].values()), n))
    if len(names) > SERIES_MAX:
        other: dict[date, int] = defaultdict(int)
        for name in names[SERIES_MAX - 1 :]:
            for day, pico in sums[name].items():
                other[day] += pico
        sums[OTHER] = other
        names = [*names[: SERIES_MAX - 1], OTHER]
    return [
        Series(name=name, colour=colour, by_day=dict(sums[name]))
        for name, colour in zip(names, _colours(names), strict=True)
    ]


def _name(spend: DaySpend) -> str:
    return f"{IN_HOUSE} {spend.model}" if spend.supplier == IN_HOUSE else spend.model


def _colours(names: Sequence[str]) -> list[int]:
    has_own = bool(names) and names[0].startswith(IN_HOUSE)
    return [
        8 if name == OTHER else place + (0 if has_own else 1)
        for place, name in enumerate(names, start=1)
    ]


def chart(
    series: Sequence[Series], *, days: Sequence[date], today: date, forecast: Forecast | None
) -> SpendChart:
    total = sum(s.total_pico for s in series)
    return {
        "days": [f"{day.day} {day:%b}" for day in days],
        "series": [
            {
                "name": s.name,
                "colour": s.colour,
                "actual": [_usd(s.by_day.get(day)) if day <= today else None for day in days],
                "forecast": [
                    _usd(forecast.per_day_pico * s.total_pico // total)
                    if forecast and total and day > today
                    else None
                    for day in days
                ],
            }
            for s in series
        ],
    }


def _usd(pico: int | None) -> float:
    return 0.0 if pico is None else pico / 1e12
