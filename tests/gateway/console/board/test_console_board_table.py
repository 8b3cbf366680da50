"""The board as a table: rank, order, bars, front."""

from typing import Any

from msgspec.structs import replace

from gateway.console.board import board_table, price_steps
from gateway.console.board.board_table import BASES, basis_of, lines, pareto
from providers.boards.shapes import Effective, ListFigures, Row, Speeds
from tests.providers.boards.made_rows import made_row


def row(sku: str, effective: int | None, **changed: Any) -> Row:
    plain = made_row(sku, provider_name=sku.capitalize(), blended_3_1_pico=1)
    listed = ListFigures(
        input_pico=1,
        cached_pico=1,
        output_pico=400_000,
        price_version=1,
        since="2026-03-01T00:00:00+00:00",
        source="house",
        free=False,
    )
    ranked = (
        None if effective is None else Effective(pico=effective, basis="measured", cache_share=0)
    )
    return replace(plain, **{"effective": ranked, "list": listed, **changed})


def skus(made: list[board_table.Line]) -> list[str]:
    return [line.row.sku for line in made]


def test_rows_stand_by_effective_price_and_those_without_come_last() -> None:
    # given the golden pair of the definitions, and an offer without a price
    rows = [row("b", 850_000), row("none", None), row("a", 600_000)]

    # when
    made = lines(rows, basis=BASES[0], sort="", descending=False)

    # then
    assert skus(made) == ["a", "b", "none"]
    assert [line.place for line in made] == [1, 2, None]
    assert [line.share for line in made] == [70.6, 100.0, 0.0]


def test_sorting_by_a_column_keeps_each_offers_place() -> None:
    rows = [row("a", 600_000, requests=1), row("b", 850_000, requests=9)]

    made = lines(rows, basis=BASES[0], sort="requests", descending=True)

    assert [(line.row.sku, line.place) for line in made] == [("b", 2), ("a", 1)]


def test_unknown_figures_come_last_whichever_way_the_column_is_sorted() -> None:
    fast = Speeds(p50=90.0, p5=40.0, n=50)
    rows = [row("a", 1), row("b", 2, output_tps=fast)]

    for descending in (False, True):
        made = lines(rows, basis=BASES[0], sort="speed", descending=descending)
        assert skus(made) == ["b", "a"]


def test_own_offers_take_the_first_colour_and_others_never_do() -> None:
    rows = [row("x", 1), row("own", 2, kind="in_house"), row("y", 3)]

    made = lines(rows, basis=BASES[0], sort="", descending=False)

    assert {line.row.sku: line.colour for line in made} == {"x": 2, "own": 1, "y": 3}


def test_an_unknown_basis_is_the_effective_price() -> None:
    assert basis_of("3-1").label == "List 3:1"
    assert basis_of("nonsense").slug == "effective"


def test_the_front_holds_only_what_nothing_beats() -> None:
    points = [(86.0, 0.56), (38.0, 1.67), (276.0, 3.47), (104.0, 4.61), (92.0, 5.72)]

    assert pareto(points) == [(276.0, 3.47), (86.0, 0.56)]


def test_the_chart_leaves_out_what_was_not_measured() -> None:
    rows = [row("a", 600_000), row("b", 850_000, output_tps=Speeds(p50=40.0, p5=20.0, n=25))]

    chart = board_table.speed_chart(lines(rows, basis=BASES[0], sort="", descending=False))

    assert [point["name"] for point in chart["points"]] == ["B"]
    assert chart["points"][0]["usd"] == 0.85


def test_many_outside_prices_are_drawn_as_their_cheapest_over_time() -> None:
    # given one that undercuts the other in March and goes up again in June
    steady = [("2026-01-01", 500)]
    mover = [("2026-02-01", 800), ("2026-03-01", 300), ("2026-06-01", 900)]

    assert price_steps.over_time([steady, mover], min) == [
        ("2026-01-01", 500),
        ("2026-03-01", 300),
        ("2026-06-01", 500),
    ]
