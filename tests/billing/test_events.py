"""The usage event: whatever an upstream says of itself, the event can be read back and kept."""

import json
from typing import Any

import pytest

from billing import events
from billing.events import AttemptDetail, AttemptEvent


def _event(**detail: Any) -> AttemptEvent:
    return AttemptEvent(
        request_id="0193b3c0-0000-7000-8000-000000000001",
        attempt=1,
        tenant=1,
        key=1,
        sku="acme/small",
        offer=1,
        supplier="acme",
        model="small",
        outcome="ok",
        occurred_ms=0,
        settled_ms=0,
        detail=AttemptDetail(**detail),
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"upstream_id": "id-1"}, {"upstream_id": "id-1"}),
        ({"upstream_id": "a\0b\ud800"}, {"upstream_id": "ab"}),
        ({"upstream_id": "x" * 100_000}, {"upstream_id": "x" * 200}),
        ({"finish_reason": "st\0op"}, {"finish_reason": "stop"}),
        ({"queue_ms": 12.5}, {"queue_ms": 12.5}),
        ({"queue_ms": "soon"}, {}),
        ({"queue_ms": True}, {}),
        ({"queue_ms": float("nan")}, {}),
        ({"queue_ms": -1}, {}),
        (
            {"speculation": {"drafted": 6, "accepted": "x", "steps": 2**70, "a\0": 1, "b": -1}},
            {"speculation": {"drafted": 6}},
        ),
    ],
)
def test_what_an_upstream_says_of_itself_is_cut_to_what_can_be_kept(
    said: dict[str, Any], kept: dict[str, Any]
) -> None:
    body = events.encode(_event(**said))

    assert json.loads(body)["detail"] == kept
    assert events.encode(events.decode(body)) == body
