"""A board in JSON is the board of the page that describes it, and an older one is read."""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from providers.boards.shapes import Facts, HomeRow, MixFigures, Row
from tests.providers.boards.made_rows import made_row

PAGE: Final = Path(__file__).parents[3] / "docs" / "leaderboards-api.md"
LATER_FIELDS: Final = ("move", "hourly", "audit", "energy", "quality", "costs")


def described(at: int) -> Any:
    """The page's JSON: a board, then a row of its home."""
    return json.loads(PAGE.read_text().split("```json\n")[at].split("```")[0])


def test_a_recorded_board_is_told_as_it_was_kept() -> None:
    board = described(1)
    for name, shape in (("mix", MixFigures), ("facts", Facts), ("rows", list[Row])):
        read = msgspec.convert(board[name], shape)
        assert msgspec.to_builtins(read) == board[name]
        assert json.dumps(msgspec.to_builtins(read), sort_keys=True) == json.dumps(
            board[name], sort_keys=True
        )


def test_a_recorded_home_row_is_told_as_it_was_kept() -> None:
    row = described(2)
    told = msgspec.to_builtins(msgspec.convert(row, HomeRow))
    assert json.dumps(told, sort_keys=True) == json.dumps(row, sort_keys=True)


def test_a_whole_number_stays_one() -> None:
    """A percentile of nought, kept as it was computed."""
    (row,) = described(1)["rows"]
    row["ttft_ms"] = {"p50": 0, "p95": 0.0, "n": 20}
    told = msgspec.to_builtins(msgspec.convert(row, Row))["ttft_ms"]
    assert json.dumps(told) == '{"p50": 0, "p95": 0.0, "n": 20}'


def test_a_row_that_was_kept_before_its_later_fields_is_read() -> None:
    (row,) = described(1)["rows"]
    older = {name: value for name, value in row.items() if name not in LATER_FIELDS}
    read = msgspec.convert(older | {"gone": 7}, Row)
    assert msgspec.to_builtins(read) == row | dict.fromkeys(LATER_FIELDS)


def test_an_offer_without_any_figure_has_every_field() -> None:
    told = msgspec.to_builtins(made_row("acme/small"))
    assert list(told) == [field.name for field in msgspec.structs.fields(Row)]
    assert set(told) == set(described(1)["rows"][0])
