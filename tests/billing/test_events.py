"""The usage event: whatever an upstream says of itself, the event can be read back and kept."""

import json
from typing import Any

import pytest

from billing import events
from billing.events import AttemptDetail, AttemptEvent
from billing.usage import CanonicalUsage


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


def test_a_settle_said_again_later_says_the_same() -> None:
    # given
    first, again = _event(finish_reason="stop"), _event(finish_reason="length")
    again.settled_ms = 99
    # then
    assert events.said(events.encode(first)) == events.said(events.encode(again))


@pytest.mark.parametrize(
    "change",
    [
        {"occurred_ms": 1},
        {"supplier_cost_pico": 1},
        {"usage": CanonicalUsage(input_tokens=1, output_tokens=0)},
        {"session": 'x","settled_ms":1,"y":"'},
        {"session": 'x","settled_ms":2,"y":"'},
    ],
)
def test_what_billing_understands_is_all_in_the_body_that_is_compared(
    change: dict[str, Any],
) -> None:
    # given
    plain, changed = _event(), _event()
    for name, value in change.items():
        setattr(changed, name, value)
    # then
    assert events.said(events.encode(plain)) != events.said(events.encode(changed))
    assert b'"occurred_ms":' in events.said(events.encode(changed))


def test_the_detail_stays_sealed_as_the_bytes_that_came() -> None:
    # given
    body = events.encode(_event(upstream_id="id-1", ranking={"model": "small"}))
    # when
    sealed = events.decode_sealed(body)
    # then
    assert bytes(sealed.detail) == b'{"upstream_id":"id-1","ranking":{"model":"small"}}'
    assert events.detail_of(sealed).upstream_id == "id-1"
