"""The reference names the fields of answers that are no serializer's."""

from pathlib import Path
from typing import Any, TypedDict

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator

from billing.events import AttemptDetail
from gateway.api.shapes import described
from gateway.api.shapes.answers import DetailAnswer
from providers.boards.leaderboards import Board


def schema() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


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
        ("/api/v1/tenants/{tenant}/requests/", {"requests"}),
        (
            "/api/v1/tenants/{tenant}/requests/{request_id}/",
            {"request_id", "occurred_at", "cost_usd", "attempts", "trued_up"},
        ),
    ],
)
def test_the_reference_has_it(path: str, fields: set[str]) -> None:
    answer = schema()["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    assert answer["schema"]["properties"].keys() == fields


def test_it_is_made_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "schema.yml"
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(file))
    assert "operationId: v1_tenants_invoices_list\n" in file.read_text()


def test_all_that_is_kept_of_an_attempt_is_described_but_what_it_taught() -> None:
    kept = set(AttemptDetail.__struct_fields__)
    assert DetailAnswer.__annotations__.keys() == kept - {"taught"}


@pytest.mark.parametrize(
    ("path", "method", "ways"),
    [
        ("/api/v1/tenants/{tenant}/keys/", "get", ["managementKey", "cookieAuth"]),
        ("/api/v1/payouts/", "post", ["operatorKey", "cookieAuth"]),
        ("/api/workers/heartbeat", "post", ["workerKey"]),
    ],
)
def test_it_says_how_to_sign_in(path: str, method: str, ways: list[str]) -> None:
    described = schema()
    assert described["paths"][path][method]["security"] == [{way: []} for way in ways]
    known = described["components"]["securitySchemes"]
    keys = [known[way] for way in ways if way != "cookieAuth"]
    assert {(key["type"], key["scheme"]) for key in keys} == {("http", "bearer")}


def test_each_call_has_a_name_of_its_own_that_tells_a_list_from_one_thing() -> None:
    named = {
        path: call["operationId"]
        for path, calls in schema()["paths"].items()
        for method, call in calls.items()
        if method == "get"
    }
    assert len(set(named.values())) == len(named)
    assert named["/api/v1/leaderboards/"] == "v1_leaderboards_list"
    assert named["/api/v1/leaderboards/{model}/"] == "v1_leaderboards_retrieve"
    for listed, one in (("requests", "request_id"), ("invoices", "number"), ("keys", "key_id")):
        path = f"/api/v1/tenants/{{tenant}}/{listed}/"
        assert named[path] == f"v1_tenants_{listed}_list"
        assert named[f"{path}{{{one}}}/"] == f"v1_tenants_{listed}_retrieve"


def test_a_sum_of_money_is_an_exact_decimal() -> None:
    balance = schema()["components"]["schemas"]["Balance"]["properties"]["credit_usd"]
    assert balance == {"type": "string", "format": "decimal", "maxLength": 40, "example": "12.50"}
