"""Price history for people: each offer's list price of output as steps, own offers first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict

from billing.money import usd_per_million
from providers.boards import leaderboards
from providers.boards.leaderboards import Series
from providers.models import Provider

# More outside sellers than this are drawn as their cheapest and their median.
OUTSIDE_NAMED_MAX: Final = 3
OUTSIDE_COLOUR: Final = 2
MEDIAN_COLOUR: Final = 8
CSV_HEAD: Final = ("offer", "provider", "since", "output_usd_per_m")
Step = tuple[str, int]


class Line(TypedDict):
    """What js/charts/steps.js draws of one offer. Micro-dollars per million tokens become dollars,
    as floats: pixels, not money."""

    name: str
    own: bool
    colour: int
    points: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Named:
    """An offer's steps, by the name that tells it from its neighbours."""

    name: str
    series: Series

    @property
    def steps(self) -> list[Step]:
        return self.series.steps


@dataclass(frozen=True, slots=True)
class Steps:
    """`drawn` are the lines of the chart; `all` is every offer's own, for the table beside it."""

    all: Sequence[Named]
    drawn: list[Line]

    def csv_rows(self) -> Iterator[tuple[str, str, str, str]]:
        for each in self.all:
            for since, pico in each.steps:
                offer = each.series
                yield offer.sku, offer.provider_name, since, usd_per_million(pico)


def read(slug: str, *, since: datetime, now: datetime) -> Steps:
    """Own offers each have a line; outside sellers have one each only where they are few."""
    series = [
        Named(_name(each), each)
        for each in leaderboards.price_history(slug, since, now=now)
        if each.steps
    ]
    own = [s for s in series if s.series.kind != Provider.Kind.EXTERNAL]
    outside = [s for s in series if s.series.kind == Provider.Kind.EXTERNAL]
    lines = [_line(s.name, s.steps, 1, own=True) for s in own]
    if len(outside) <= OUTSIDE_NAMED_MAX:
        lines += [
            _line(s.name, s.steps, colour, own=False)
            for colour, s in enumerate(outside, start=OUTSIDE_COLOUR)
        ]
    else:
        all_steps = [s.steps for s in outside]
        lines.append(
            _line("Cheapest outside", over_time(all_steps, min), OUTSIDE_COLOUR, own=False)
        )
        lines.append(
            _line("Median outside", over_time(all_steps, _middle), MEDIAN_COLOUR, own=False)
        )
    return Steps(all=series, drawn=[_until(line, now) for line in lines])


def over_time(series: Sequence[Sequence[Step]], pick: Callable[[list[int]], int]) -> list[Step]:
    """One figure out of all prices that stood at each moment any of them changed."""
    picked: list[Step] = []
    for moment in sorted({since for steps in series for since, _ in steps}):
        standing = [
            [pico for since, pico in steps if since <= moment][-1]
            for steps in series
            if steps[0][0] <= moment
        ]
        figure = pick(standing)
        if not picked or picked[-1][1] != figure:
            picked.append((moment, figure))
    return picked


def _middle(prices: list[int]) -> int:
    """The lower of the two middle ones: a price that somebody asks."""
    return sorted(prices)[(len(prices) - 1) // 2]


def _name(series: Series) -> str:
    """Of one house there are several offers."""
    if series.kind == Provider.Kind.EXTERNAL:
        return series.provider_name
    return f"{series.provider_name} {series.sku.rsplit('/', 1)[-1]}"


def _line(name: str, steps: Sequence[Step], colour: int, *, own: bool) -> Line:
    points = [(since, pico / 1e6) for since, pico in steps]
    return {"name": name, "own": own, "colour": colour, "points": points}


def _until(line: Line, now: datetime) -> Line:
    """The last price holds until now, so that every line reaches the right edge."""
    line["points"].append((now.isoformat(), line["points"][-1][1]))
    return line
