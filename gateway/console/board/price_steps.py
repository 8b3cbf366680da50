"""Price history for people: each offer's list price of output as steps, own offers first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from billing.money import usd_per_million
from providers.boards import leaderboards
from providers.boards.leaderboards import Series

# More outside sellers than this are drawn as their cheapest and their median.
OUTSIDE_NAMED_MAX: Final = 3
OUTSIDE_COLOUR: Final = 2
MEDIAN_COLOUR: Final = 8
CSV_HEAD: Final = ("offer", "provider", "since", "output_usd_per_m")
Step = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Steps:
    """`drawn` are the lines of the chart; `all` is every offer's own, for the table beside it."""

    all: Sequence[Mapping[str, Any]]
    drawn: list[dict[str, Any]]

    def csv_rows(self) -> Iterator[tuple[str, str, str, str]]:
        for series in self.all:
            for since, pico in series["steps"]:
                yield series["sku"], series["provider_name"], since, usd_per_million(pico)


def read(slug: str, *, since: datetime, now: datetime) -> Steps:
    """Own offers each have a line; outside sellers have one each only where they are few."""
    series = [
        plain
        for s in leaderboards.price_history(slug, since, now=now)
        if (plain := _plain(s))["steps"]
    ]
    own = [s for s in series if s["kind"] != "external"]
    outside = [s for s in series if s["kind"] == "external"]
    lines = [_line(s["name"], s["steps"], 1, own=True) for s in own]
    if len(outside) <= OUTSIDE_NAMED_MAX:
        lines += [
            _line(s["name"], s["steps"], colour, own=False)
            for colour, s in enumerate(outside, start=OUTSIDE_COLOUR)
        ]
    else:
        all_steps = [s["steps"] for s in outside]
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


def _plain(series: Series) -> Mapping[str, Any]:
    """With the name that tells it from its neighbours: of one house there are several offers."""
    name = series.provider_name
    if series.kind != "external":
        name = f"{name} {series.sku.rsplit('/', 1)[-1]}"
    return {**asdict(series), "name": name}


def _line(name: str, steps: Sequence[Step], colour: int, *, own: bool) -> dict[str, Any]:
    points = [[since, pico / 1e6] for since, pico in steps]
    return {"name": name, "own": own, "colour": colour, "points": points}


def _until(line: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The last price holds until now, so that every line reaches the right edge."""
    line["points"].append([now.isoformat(), line["points"][-1][1]])
    return line
