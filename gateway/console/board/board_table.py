"""The board as a table: which figure ranks, how rows sort, what the charts draw. Pure.

Rows are those of docs/leaderboards-api.md. A row without the ranked figure keeps its
place at the end and has no rank.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from billing.money import usd_per_million
from providers.boards.shapes import Number, Row

OUTSIDE_COLOUR: Final = 2
LAST_COLOUR: Final = 8


@dataclass(frozen=True, slots=True)
class Basis:
    """A figure to rank by."""

    slug: str
    label: str
    unit: str
    pico: Callable[[Row], int | None]


BASES: Final = (
    Basis(
        "effective", "Effective", "$/M output", lambda r: r.effective.pico if r.effective else None
    ),
    Basis("3-1", "List 3:1", "$/M blended", lambda r: r.blended_3_1_pico),
    Basis("7-2-1", "List 7:2:1", "$/M blended", lambda r: r.blended_7_2_1_pico),
)

COLUMNS: Final[dict[str, Callable[[Row], Any]]] = {
    "offer": lambda r: (r.provider_name.lower(), r.variant),
    "list": lambda r: r.list.output_pico if r.list else None,
    "cached": lambda r: r.list.cached_pico if r.list else None,
    "paid": lambda r: r.paid_pico,
    "ttft": lambda r: r.ttft_ms.p50 if r.ttft_ms else None,
    "speed": lambda r: r.output_tps.p50 if r.output_tps else None,
    "uptime": lambda r: r.uptime.percent if r.uptime else None,
    "requests": lambda r: r.requests,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One row as drawn: its place by the chosen basis, and the bar under the ranked figure."""

    row: Row
    place: int | None
    ranked_pico: int | None
    share: float
    own: bool
    colour: int


def basis_of(slug: str) -> Basis:
    return next((basis for basis in BASES if basis.slug == slug), BASES[0])


def lines(rows: Sequence[Row], *, basis: Basis, sort: str, descending: bool) -> list[Line]:
    """All rows with their place by `basis`, ordered by the column `sort` (the rank by default)."""
    priced = [(pico, row) for row in rows if (pico := basis.pico(row)) is not None]
    by_price = [row for _, row in sorted(priced, key=lambda pair: pair[0])]
    dearest = max((pico for pico, _ in priced), default=0)
    places = {r.sku: place for place, r in enumerate(by_price, start=1)}
    colours = _colours(by_price)
    made = [
        Line(
            row=row,
            place=places.get(row.sku),
            ranked_pico=basis.pico(row),
            share=_share(basis.pico(row), dearest),
            own=is_own(row),
            colour=colours.get(row.sku, LAST_COLOUR),
        )
        for row in rows
    ]
    return _sorted(made, sort, descending)


def is_own(row: Row) -> bool:
    return row.kind != "external"


def _share(pico: int | None, dearest: int | None) -> float:
    return 0.0 if not pico or not dearest else round(100 * pico / dearest, 1)


def _colours(by_price: Sequence[Row]) -> dict[str, int]:
    """Own offers have the first colour; the others take the rest in order, then the last."""
    colours: dict[str, int] = {}
    outside = 0
    for row in by_price:
        if is_own(row):
            colours[row.sku] = 1
        else:
            colours[row.sku] = min(OUTSIDE_COLOUR + outside, LAST_COLOUR)
            outside += 1
    return colours


def _sorted(made: list[Line], sort: str, descending: bool) -> list[Line]:
    key = COLUMNS.get(sort)

    def value(line: Line) -> Any:
        return line.place if key is None else key(line.row)

    known = [line for line in made if value(line) is not None]
    unknown = [line for line in made if value(line) is None]
    return sorted(known, key=value, reverse=descending) + unknown


def name_of(row: Row) -> str:
    return f"{row.provider_name} · {row.variant}" if row.variant else row.provider_name


class SpeedPoint(TypedDict):
    name: str
    speed: Number
    usd: float
    n: int
    colour: int
    own: bool


class SpeedChart(TypedDict):
    points: list[SpeedPoint]
    front: list[tuple[Number, float]]


def speed_chart(made: Sequence[Line]) -> SpeedChart:
    """Price against speed, of the rows where both are measured, and the Pareto front."""
    points: list[SpeedPoint] = [
        {
            "name": name_of(line.row),
            "speed": line.row.output_tps.p50,
            "usd": line.ranked_pico / 1e6,
            "n": line.row.output_tps.n,
            "colour": line.colour,
            "own": line.own,
        }
        for line in made
        if line.ranked_pico is not None and line.row.output_tps
    ]
    return {"points": points, "front": pareto([(p["speed"], p["usd"]) for p in points])}


def pareto(points: Sequence[tuple[Number, float]]) -> list[tuple[Number, float]]:
    """The offers that none other beats in both speed and price, from the fastest down."""
    front: list[tuple[Number, float]] = []
    for speed, usd in sorted(points, key=lambda p: (-p[0], p[1])):
        if not front or usd < front[-1][1]:
            front.append((speed, usd))
    return front


CSV_HEAD: Final = (
    "rank offer provider variant kind state routable effective_usd_per_m basis "
    "list_input_usd_per_m list_cached_usd_per_m list_output_usd_per_m paid_usd_per_m "
    "ttft_ms_p50 ttft_ms_p95 output_tps_p50 uptime_percent requests last_at"
).split()


def csv_row(line: Line) -> list[Any]:
    row = line.row

    listed, effective, waited, uptime = row.list, row.effective, row.ttft_ms, row.uptime

    def usd(pico: int | None) -> str:
        return "" if pico is None else usd_per_million(pico)

    return [
        line.place or "",
        row.sku,
        row.provider_name,
        row.variant,
        row.kind,
        row.state,
        row.routable,
        usd(effective.pico if effective else None),
        effective.basis if effective else "",
        usd(listed.input_pico if listed else None),
        usd(listed.cached_pico if listed else None),
        usd(listed.output_pico if listed else None),
        usd(row.paid_pico),
        waited.p50 if waited else None,
        waited.p95 if waited else None,
        row.output_tps.p50 if row.output_tps else None,
        uptime.percent if uptime else None,
        row.requests,
        row.last_at or "",
    ]
