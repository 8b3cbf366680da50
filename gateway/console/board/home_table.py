"""The board's home: one row per leading model, searched, filtered and sorted from the URL."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from providers.boards import leaderboards

ROWS_SHOWN: Final = 60
CSV_HEAD: Final = (
    "model creator sellers routable cheapest_offer cheapest_usd_per_m creator_usd_per_m "
    "in_house_usd_per_m spread change_30d_percent fastest_offer fastest_tps"
).split()


def _part(name: str, part: str) -> Callable[[Any], Any]:
    def read_part(row: Any) -> Any:
        inner = getattr(row, name)
        return None if inner is None else inner[part]

    return read_part


COLUMNS: Final[dict[str, Callable[[Any], Any]]] = {
    "model": lambda row: row.name.lower(),
    "cheapest": _part("cheapest", "effective_pico"),
    "creator": _part("creator_price", "effective_pico"),
    "in-house": _part("in_house", "effective_pico"),
    "spread": lambda row: row.spread,
    "change": lambda row: row.change_30d_percent,
    "fastest": _part("fastest", "output_tps_p50"),
    "sellers": lambda row: row.sellers,
}


@dataclass(frozen=True, slots=True)
class HomeTable:
    rows: list[Any]
    found: int
    query: str
    sort: str
    creators: list[str]
    creator: str


def read(parameters: Mapping[str, str]) -> HomeTable:
    """The rows asked for by `q`, `creator`, `sort` and `dir`; at most ROWS_SHOWN of them."""
    everything = list(leaderboards.home())
    query = parameters.get("q", "").strip().lower()
    creator = parameters.get("creator", "")
    rows = [
        row
        for row in everything
        if (query in row.name.lower() or query in row.model.lower())
        and (not creator or row.creator == creator)
    ]
    sort = parameters.get("sort", "")
    return HomeTable(
        rows=_sorted(rows, sort, parameters.get("dir") == "desc")[:ROWS_SHOWN],
        found=len(rows),
        query=query,
        sort=sort,
        creators=sorted({row.creator for row in everything if row.creator}),
        creator=creator,
    )


def _sorted(rows: list[Any], sort: str, descending: bool) -> list[Any]:
    key = COLUMNS.get(sort)
    if key is None:
        return rows
    known = [row for row in rows if key(row) is not None]
    unknown = [row for row in rows if key(row) is None]
    return sorted(known, key=key, reverse=descending) + unknown


def csv_row(row: Any) -> list[Any]:
    def usd(name: str) -> Any:
        pico = COLUMNS[name](row)
        return "" if pico is None else f"{pico / 1e6:.6f}".rstrip("0").rstrip(".")

    return [
        row.model,
        row.creator,
        row.sellers,
        row.routable,
        row.cheapest["sku"] if row.cheapest else "",
        usd("cheapest"),
        usd("creator"),
        usd("in-house"),
        row.spread,
        row.change_30d_percent,
        row.fastest["sku"] if row.fastest else "",
        row.fastest["output_tps_p50"] if row.fastest else "",
    ]
