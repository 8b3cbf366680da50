"""The events that clients of one dialect get from an upstream of the other."""

from typing import Any

import msgspec
import pytest

from billing.usage import CanonicalUsage
from gateway.dataplane.surfaces import anthropic_messages, openai_chat
from providers.chat import Chunk, Receipt
from tests.factories import anthropic_request, openai_request

RECEIPT = Receipt(
    request_id="r1",
    model="small",
    provider="acme",
    sku="acme/small",
    usage=CanonicalUsage(
        input_tokens=20, output_tokens=8, cache_read_tokens=5, cache_write_1h_tokens=3
    ),
    usage_source="provider",
    cost_pico=1,
    usage_extra={"speculation": {"drafted": 9}},
)


def call(index: int, identity: str = "", name: str = "", arguments: str = "") -> Chunk:
    delta: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if identity:
        delta["id"] = identity
        delta["function"]["name"] = name
    return Chunk(b"", "openai", tool_calls=[delta])


def anthropic_events(*chunks: Chunk, receipt: Receipt = RECEIPT) -> list[dict[str, Any]]:
    writer = anthropic_messages.writer(anthropic_request(stream=True), request_id="r1", created_s=1)
    out = b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(receipt)
    return [msgspec.json.decode(event.partition(b"data: ")[2]) for event in out.split(b"\n\n")[:-1]]


def openai_events(*chunks: Chunk) -> list[Any]:
    writer = openai_chat.writer(openai_request(stream=True), request_id="r1", created_s=1)
    out = b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(RECEIPT)
    data = [event.partition(b"data: ")[2] for event in out.split(b"\n\n")[:-1]]
    assert data[-1] == b"[DONE]"
    return [msgspec.json.decode(each) for each in data[:-1]]


def blocks(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each content block as its type and everything its deltas said."""
    said: list[tuple[str, str]] = []
    open_index = None
    for event in events:
        if event["type"] == "content_block_start":
            assert open_index is None
            open_index = event["index"]
            assert open_index == len(said)
            said.append((event["content_block"]["type"], ""))
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_index
            delta = event["delta"]
            words = delta.get("text") or delta.get("thinking") or delta.get("partial_json")
            said[-1] = (said[-1][0], said[-1][1] + words)
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_index
            open_index = None
    assert open_index is None
    return said


def test_thinking_text_and_a_tool_become_blocks_in_turn() -> None:
    events = anthropic_events(
        Chunk(b"", "openai", reasoning="Hm"),
        Chunk(b"", "openai", reasoning="m."),
        Chunk(b"", "openai", text="I "),
        Chunk(b"", "openai", text="look."),
        call(0, "call_a", "weather"),
        call(0, arguments='{"a":'),
        call(0, arguments="1}"),
        Chunk(b"", "openai", finish_reason="tool_calls"),
    )

    assert blocks(events) == [("thinking", "Hmm."), ("text", "I look."), ("tool_use", '{"a":1}')]
    assert events[0]["type"] == "message_start"
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-1] == {"type": "message_stop"}


def test_tool_calls_that_interleave_are_put_one_after_the_other() -> None:
    events = anthropic_events(
        call(0, "call_a", "f"),
        call(1, "call_b", "g"),
        call(0, arguments='{"a":'),
        call(1, arguments='{"b":2}'),
        call(0, arguments="1}"),
        Chunk(b"", "openai", finish_reason="tool_calls"),
    )

    assert blocks(events) == [("tool_use", '{"a":1}'), ("tool_use", '{"b":2}')]
    starts = [e["content_block"] for e in events if e["type"] == "content_block_start"]
    assert [(block["id"], block["name"]) for block in starts] == [("call_a", "f"), ("call_b", "g")]


def test_an_answer_without_content_is_still_a_message() -> None:
    events = anthropic_events(Chunk(b"", "openai", finish_reason="length"))

    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]
    assert events[1]["delta"]["stop_reason"] == "max_tokens"


def test_usage_for_anthropic_counts_the_cache_beside_the_input() -> None:
    usage = anthropic_events(Chunk(b"", "openai", text="x"))[-2]["usage"]

    assert usage == {
        "input_tokens": 12,
        "output_tokens": 8,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 3,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 3},
        "cost": 1e-12,
        "speculation": {"drafted": 9},
    }


def test_usage_for_openai_counts_the_cache_inside_the_prompt() -> None:
    usage = openai_events(Chunk(b"", "anthropic", text="x"))[-1]["usage"]

    assert usage == {
        "prompt_tokens": 20,
        "completion_tokens": 8,
        "total_tokens": 28,
        "prompt_tokens_details": {
            "cached_tokens": 5,
            "cache_write_tokens": 3,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        "cost": 1e-12,
        "speculation": {"drafted": 9},
    }


@pytest.mark.parametrize(
    ("cost_pico", "expected"),
    [
        (0, b'"cost":0,'),
        (1, b'"cost":0.000000000001,'),
        (153_228_000, b'"cost":0.000153228,'),
        (10**12, b'"cost":1,'),
        (123_456_789_012_345_678_901, b'"cost":123456789.012345678901,'),
    ],
)
def test_the_cost_is_written_to_the_last_digit(cost_pico: int, expected: bytes) -> None:
    receipt = Receipt(
        request_id="r1",
        model="small",
        provider="acme",
        sku="acme/small",
        usage=RECEIPT.usage,
        usage_source="estimated",
        cost_pico=cost_pico,
    )
    writer = openai_chat.writer(openai_request(stream=True), request_id="r1", created_s=1)

    assert expected in writer.end(receipt)


def test_a_vendor_cannot_set_our_cost_by_its_extras() -> None:
    receipt = Receipt(
        request_id="r1",
        model="small",
        provider="acme",
        sku="acme/small",
        usage=RECEIPT.usage,
        usage_source="provider",
        cost_pico=7,
        usage_extra={"cost": 9, "prompt_tokens": 9},
    )
    writer = openai_chat.writer(openai_request(stream=True), request_id="r1", created_s=1)

    event = msgspec.json.decode(writer.end(receipt).split(b"\n\n")[0].removeprefix(b"data: "))

    assert event["usage"]["cost"] == 7e-12
    assert event["usage"]["prompt_tokens"] == 20


def test_openai_chunks_carry_one_id_the_role_once_and_reasoning() -> None:
    events = openai_events(
        Chunk(b"event: ping\n\n", "anthropic"),
        Chunk(b"", "anthropic", reasoning="Hm"),
        Chunk(b"", "anthropic", text="Hi"),
        Chunk(b"", "anthropic", finish_reason="stop", hidden=True),
    )

    assert [event["choices"][0]["delta"] for event in events[:-1]] == [
        {"role": "assistant", "content": "", "reasoning": "Hm"},
        {"content": "Hi"},
        {},
    ]
    assert {event["id"] for event in events} == {"chatcmpl-r1"}
    assert events[2]["choices"][0]["finish_reason"] == "stop"


def test_a_broken_stream_says_what_was_billed_before_the_error() -> None:
    writer = openai_chat.writer(openai_request(stream=True, n=2), request_id="r1", created_s=1)
    writer.chunk(Chunk(b"", "anthropic", text="Hi", index=1))

    out = writer.error(status=502, code="upstream_cut", message="Cut.", receipt=RECEIPT)

    usage, error, done = [event.removeprefix(b"data: ") for event in out.split(b"\n\n")[:-1]]
    assert msgspec.json.decode(usage)["usage"]["completion_tokens"] == 8
    told = msgspec.json.decode(error)
    assert told["choices"][0]["finish_reason"] == "error"
    assert told["choices"][0]["index"] == 1
    assert told["error"] == {
        "message": "Cut.",
        "type": "api_error",
        "code": "upstream_cut",
        "status": 502,
    }
    assert done == b"[DONE]"


def test_arguments_that_are_no_object_are_kept_for_the_caller_to_see() -> None:
    writer = anthropic_messages.writer(anthropic_request(), request_id="r1", created_s=1)
    chunks = [call(0, "call_a", "f", "{broken"), Chunk(b"", "openai", finish_reason="tool_calls")]

    body = msgspec.json.decode(writer.whole(chunks, RECEIPT))

    assert body["content"][0]["input"] == {"invalid_arguments": "{broken"}


def test_a_whole_answer_of_the_same_dialect_keeps_every_field_but_usage() -> None:
    raw = b'{"id":"up1","choices":[],"usage":{"prompt_tokens":1},"vendor":1.50,"model":"m"}'
    writer = openai_chat.writer(openai_request(), request_id="r1", created_s=1)

    body = writer.whole([Chunk(raw, "openai")], RECEIPT)

    assert body.startswith(b'{"id":"up1","choices":[],"usage":{"prompt_tokens":20,')
    assert body.endswith(b'"vendor":1.50,"model":"m"}')


def test_half_a_surrogate_pair_is_written_as_the_escape_that_it_came_as() -> None:
    half = Chunk(b"", text="a\ud83d", finish_reason="stop")
    writer = openai_chat.writer(openai_request(stream=True), request_id="r1", created_s=1)

    assert b'"delta":{"role":"assistant","content":"a\\ud83d"},' in writer.chunk(half)
    assert b'"content":"a\\ud83d"' in writer.whole([half], RECEIPT)
    other = anthropic_messages.writer(anthropic_request(stream=True), request_id="r1", created_s=1)
    assert b'"delta":{"type":"text_delta","text":"a\\ud83d"}}' in other.chunk(half)
