"""Price history for people: each offer's list price of output as steps, own offers first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from providers import leaderboards

SERIES_MAX: Final = 8
CSV_HEAD: Final = ("offer", "provider", "since", "output_usd_per_m")


@dataclass(frozen=True, slots=True)
class Steps:
    """`drawn` are the series of the chart; `all` is what the table beside it holds."""

    all: Sequence[Mapping[str, Any]]
    drawn: list[dict[str, Any]]

    def csv_rows(self) -> Iterator[tuple[str, str, str, str]]:
        for series in self.all:
            for since, pico in series["steps"]:
                yield series["sku"], series["provider_name"], since, _usd_text(pico)


def read(slug: str, *, since: datetime, now: datetime) -> Steps:
    """All of the model's series; the chart draws those that have changed, then the cheapest."""
    series = [_plain(s) for s in leaderboards.price_history(slug, since) if _plain(s)["steps"]]
    chosen = sorted(series, key=_interest)[:SERIES_MAX]
    drawn = [_drawn(s, now, colour) for s, colour in zip(chosen, _colours(chosen), strict=True)]
    return Steps(all=series, drawn=drawn)


def _plain(series: Any) -> Mapping[str, Any]:
    if isinstance(series, Mapping):
        return series
    return {name: getattr(series, name) for name in ("sku", "provider_name", "kind", "steps")}


def _interest(series: Mapping[str, Any]) -> tuple[bool, int, int]:
    return series["kind"] == "external", -len(series["steps"]), series["steps"][-1][1]


def _colours(chosen: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    outside = 2
    for series in chosen:
        if series["kind"] == "external":
            yield min(outside, 8)
            outside += 1
        else:
            yield 1


def _drawn(series: Mapping[str, Any], now: datetime, colour: int) -> dict[str, Any]:
    """The last price holds until now, so that every line reaches the right edge."""
    points = [[since, pico / 1e6] for since, pico in series["steps"]]
    points.append([now.isoformat(), points[-1][1]])
    own = series["kind"] != "external"
    variant = series["sku"].rsplit("/", 1)[-1]
    name = f"{series['provider_name']} {variant}" if own else series["provider_name"]
    return {"name": name, "own": own, "colour": colour, "points": points}


def _usd_text(pico: int) -> str:
    return f"{pico / 1e6:.6f}".rstrip("0").rstrip(".")
