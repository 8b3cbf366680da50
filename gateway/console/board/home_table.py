"""The board's home: one row per leading model, searched, filtered and sorted from the URL."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from billing.money import usd_per_million
from providers.boards import leaderboards
from providers.boards.shapes import HomeRow

ROWS_SHOWN: Final = 60
CSV_HEAD: Final = (
    "model creator sellers routable cheapest_offer cheapest_usd_per_m creator_usd_per_m "
    "in_house_usd_per_m spread change_30d_percent fastest_offer fastest_tps"
).split()


COLUMNS: Final[dict[str, Callable[[HomeRow], Any]]] = {
    "model": lambda row: row.name.lower(),
    "cheapest": lambda row: row.cheapest.effective_pico if row.cheapest else None,
    "creator": lambda row: row.creator_price.effective_pico if row.creator_price else None,
    "in-house": lambda row: row.in_house.effective_pico if row.in_house else None,
    "spread": lambda row: row.spread,
    "change": lambda row: row.change_30d_percent,
    "fastest": lambda row: row.fastest.output_tps_p50 if row.fastest else None,
    "sellers": lambda row: row.sellers,
}


@dataclass(frozen=True, slots=True)
class HomeTable:
    rows: list[HomeRow]
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


def _sorted(rows: list[HomeRow], sort: str, descending: bool) -> list[HomeRow]:
    key = COLUMNS.get(sort)
    if key is None:
        return rows
    known = [row for row in rows if key(row) is not None]
    unknown = [row for row in rows if key(row) is None]
    return sorted(known, key=key, reverse=descending) + unknown


def csv_row(row: HomeRow) -> list[Any]:
    def usd(name: str) -> Any:
        pico = COLUMNS[name](row)
        return "" if pico is None else usd_per_million(pico)

    return [
        row.model,
        row.creator,
        row.sellers,
        row.routable,
        row.cheapest.sku if row.cheapest else "",
        usd("cheapest"),
        usd("creator"),
        usd("in-house"),
        row.spread,
        row.change_30d_percent,
        row.fastest.sku if row.fastest else "",
        row.fastest.output_tps_p50 if row.fastest else "",
    ]
