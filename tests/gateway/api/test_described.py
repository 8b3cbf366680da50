"""The reference names the fields of answers that are no serializer's."""

from typing import Any, TypedDict

import pytest
from drf_spectacular.generators import SchemaGenerator

from gateway.api.shapes import described
from providers.boards.leaderboards import Board


class Part(TypedDict):
    name: str | None
    steps: list[tuple[str, int]]


class Whole(TypedDict):
    parts: list[Part]
    first: Part | None


def test_an_answer_is_described_where_it_stands() -> None:
    part = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "nullable": True},
            "steps": {"type": "array", "items": {"type": "array", "items": {}}},
        },
        "required": ["name", "steps"],
    }
    assert described.answer(Whole) == {
        200: {
            "type": "object",
            "properties": {
                "first": {**part, "nullable": True},
                "parts": {"type": "array", "items": part},
            },
            "required": ["first", "parts"],
        }
    }


def test_a_board_is_described_to_the_last_figure() -> None:
    board: Any = described.answer(Board)[200]
    row = board["properties"]["rows"]["items"]["properties"]
    assert row["rank"] == {"type": "integer", "nullable": True}
    assert row["errors"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert row["ttft_ms"]["properties"].keys() == {"p50", "p95", "n"}
    assert row["costs"]["properties"]["gaps"]["properties"]["full"]["nullable"] is True


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/v1/leaderboards/", {"models"}),
        ("/api/v1/leaderboards/{model}/prices/", {"model", "series"}),
        ("/api/v1/tenants/{tenant}/usage/", {"since", "until", "totals", "days"}),
    ],
)
def test_the_reference_has_it(path: str, fields: set[str]) -> None:
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    answer = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    assert answer["schema"]["properties"].keys() == fields
