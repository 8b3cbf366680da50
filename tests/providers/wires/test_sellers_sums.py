"""What sellers charge us stands in no answer that a caller sees, wherever they put it."""

import json
from typing import Any

import pytest

from billing.usage import CanonicalUsage
from providers.chat import Chunk, ResponseReader
from providers.wires import exact_shapes, seller_costs
from providers.wires.registry import wire_for
from tests.factories import offer_view, openai_request

PLANTED = "0.0871300087"
COUNTS: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
# Where sellers were seen to put their sums, and some that may come.
PLACES: dict[str, dict[str, Any]] = {
    "usage of OpenRouter": {
        "usage": {
            **COUNTS,
            "cost": PLANTED,
            "is_byok": False,
            "cost_details": {"upstream_inference_cost": PLANTED},
        }
    },
    "usage of x-ai": {"usage": {**COUNTS, "cost_in_usd_ticks": PLANTED}},
    "usage of DeepInfra": {"usage": {**COUNTS, "estimated_cost": PLANTED}},
    "usage of Perplexity": {"usage": {**COUNTS, "cost": {"total_cost": PLANTED}}},
    "deep in usage": {"usage": {**COUNTS, "meta": [{"billedUnits": {"totalPrice": PLANTED}}]}},
    "NanoGPT": {"x_nanogpt_pricing": {"amount": PLANTED, "currency": "USD"}},
    "on top": {"cost": PLANTED},
    "credit left": {"x_account": {"credits_remaining": PLANTED, "Balance": PLANTED}},
}


def reader_of(dialect: Any, *, stream: bool) -> ResponseReader:
    return wire_for(dialect).reader(openai_request(stream=stream), offer_view(wire=dialect))


def told(reader: ResponseReader, *pieces: bytes) -> tuple[bytes, list[Chunk]]:
    """All that may reach a caller: the bytes that pass, and the extras of usage."""
    chunks = [chunk for piece in pieces for chunk in reader.feed(piece)] + reader.end()
    shown = b"".join(chunk.raw for chunk in chunks if not chunk.hidden)
    return shown + json.dumps(reader.usage_extra).encode(), chunks


@pytest.mark.parametrize("beside", ["content", "nothing"])
@pytest.mark.parametrize("place", PLACES)
def test_a_stream_in_openais_dialect_says_no_sum(place: str, beside: str) -> None:
    # given
    reader = reader_of("openai", stream=True)
    choice = {"index": 0, "delta": {"content": "the cost is fine"}, "finish_reason": "stop"}
    said = {"id": "u1", "choices": [choice] if beside == "content" else [], **PLACES[place]}
    first = {"id": "u1", "choices": [{**choice, "finish_reason": None}]}

    # when
    shown, chunks = told(
        reader, *(b"data: " + json.dumps(part).encode() + b"\n\n" for part in (first, said))
    )

    # then
    assert PLANTED.encode() not in shown
    assert "".join(chunk.text for chunk in chunks).startswith("the cost is fine")
    if "usage" in PLACES[place]:
        assert reader.usage == CanonicalUsage(input_tokens=5, output_tokens=2)


@pytest.mark.parametrize("place", PLACES)
def test_a_whole_answer_in_openais_dialect_says_no_sum(place: str) -> None:
    reader = reader_of("openai", stream=False)
    message = {
        "role": "assistant",
        "content": "half a pair \ud83d",
        "provider_metadata": {"gateway": {"cost": PLANTED, "marketCost": PLANTED}},
    }
    choice = {"index": 0, "message": message, "finish_reason": "stop"}

    shown, _ = told(reader, json.dumps({"id": "u1", "choices": [choice], **PLACES[place]}).encode())

    assert PLANTED.encode() not in shown


def test_what_is_no_sum_passes_as_it_came() -> None:
    data = b'{"id": "u1", "choices":[{"index":0, "delta":{"content":"costs $5"}}], "x":{"n":1.0}}'

    assert seller_costs.without(data) is data


def test_a_tools_own_arguments_are_not_touched() -> None:
    data = json.dumps(
        {"content": [{"type": "tool_use", "input": {"price": 5, "cost": 6}}], "cost": PLANTED}
    ).encode()

    assert json.loads(seller_costs.without(data)) == {
        "content": [{"type": "tool_use", "input": {"price": 5, "cost": 6}}]
    }


def anthropic_stream(extra: dict[str, Any]) -> list[bytes]:
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"id": "m1", "usage": {"input_tokens": 5, "output_tokens": 1, **extra}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0, **extra},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 2, **extra},
            **extra,
        },
        {"type": "message_stop", **extra},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def test_a_stream_in_anthropics_dialect_says_no_sum() -> None:
    reader = reader_of("anthropic", stream=True)

    shown, chunks = told(reader, *anthropic_stream({"cost": PLANTED, "costDetails": [PLANTED]}))

    assert PLANTED.encode() not in shown
    assert PLANTED.encode() not in b"".join(chunk.raw for chunk in chunks)
    assert shown.count(b"event: ") == 4
    assert reader.usage == CanonicalUsage(input_tokens=5, output_tokens=2)


def test_usual_events_are_known_at_a_glance_and_others_looked_into() -> None:
    usual_event = {"id": "u1", "choices": [{"index": 0, "delta": {"content": "x"}}], "usage": None}

    assert exact_shapes.is_usual_openai(json.dumps(usual_event).encode())
    assert not exact_shapes.is_usual_openai(json.dumps({**usual_event, "cost": 1}).encode())
    assert not exact_shapes.is_usual_openai(
        json.dumps({**usual_event, "usage": {"cost": 1}}).encode()
    )
    for name in ("id", "created", "provider", "system_fingerprint"):
        hidden = json.dumps({**usual_event, name: {"cost": 1}}).encode()
        assert not exact_shapes.is_usual_openai(hidden)
        assert exact_shapes.plain_openai(hidden) is None
    whole = {
        "id": "u1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}],
        "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}},
    }
    assert exact_shapes.is_usual_openai(json.dumps(whole).encode())
    whole["usage"] = {"prompt_tokens": 1, "prompt_tokens_details": {"cost": 0}}
    assert not exact_shapes.is_usual_openai(json.dumps(whole).encode())
    deltas = anthropic_stream({})
    assert exact_shapes.is_usual_anthropic(deltas[2].partition(b"data: ")[2])
    assert not exact_shapes.is_usual_anthropic(deltas[4].partition(b"data: ")[2])


CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("name", ["role", "refusal", "reasoning", "reasoning_content"])
def test_nothing_hides_in_what_a_delta_names(name: str) -> None:
    delta = {"content": "x", name: "usual"}
    event: dict[str, Any] = {"choices": [{"delta": delta}]}
    assert exact_shapes.is_usual_openai(json.dumps(event).encode())
    delta[name] = {"cost": PLANTED}  # type: ignore[assignment]
    hidden = json.dumps(event).encode()
    assert not exact_shapes.is_usual_openai(hidden)
    assert exact_shapes.plain_openai(hidden) is None


def test_nothing_hides_beside_what_a_tool_call_says() -> None:
    for usual_part in ({"tool_calls": [CALL]}, {"function_call": CALL["function"]}):
        event = {"choices": [{"delta": usual_part}]}
        assert exact_shapes.is_usual_openai(json.dumps(event).encode())
    function = {"name": "f", "arguments": "{}", "cost": PLANTED}
    for part in (
        {"tool_calls": [{**CALL, "cost": PLANTED}]},
        {"tool_calls": [{**CALL, "function": function}]},
        {"function_call": function},
    ):
        data = {"choices": [{"index": 0, "delta": part}]}
        shown, _ = told(reader_of("openai", stream=True), f"data: {json.dumps(data)}\n\n".encode())
        assert PLANTED.encode() not in shown


@pytest.mark.parametrize("name", ["type", "signature", "text", "thinking"])
def test_nothing_hides_in_what_an_anthropic_delta_names(name: str) -> None:
    delta = {"type": "text_delta", "text": "x", name: "usual"}
    event: dict[str, Any] = {"type": "content_block_delta", "index": 0, "delta": delta}
    assert exact_shapes.is_usual_anthropic(json.dumps(event).encode())
    delta[name] = {"cost": PLANTED}  # type: ignore[assignment]
    assert not exact_shapes.is_usual_anthropic(json.dumps(event).encode())
