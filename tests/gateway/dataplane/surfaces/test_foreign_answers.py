"""What servers of others send in the middle of an answer, and what of it is no answer."""

import json

import pytest

from billing.usage import CanonicalUsage
from providers import errors
from providers.chat import Chunk
from tests.gateway.foreign import (
    CALL,
    COUNTS,
    DONE,
    HALVES,
    SMILE,
    START,
    as_anthropic,
    as_openai,
    block_event,
    choice,
    event,
    finishes,
    read,
    stop_reason,
    text,
)


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
@pytest.mark.parametrize(
    "after",
    [
        [event(choice(), usage=COUNTS)],
        [event(choice('"content":""'), usage=COUNTS)],
        [event(choice('"role":"assistant","content":null')), event(usage=COUNTS)],
        [event(choice(finish="stop"), usage=COUNTS)],
        [event(usage=COUNTS), event()],
    ],
)
def test_what_follows_a_finish_does_not_reopen_it(reason: str, after: list[bytes]) -> None:
    said = CALL if reason == "tool_calls" else text("Hi")

    reader, chunks = read(event(said), event(choice(finish=reason)), *after, DONE)

    assert (reader.finished, reader.finish_reason) == (True, reason)
    assert finishes(as_openai(reader, chunks)) == [(0, reason)]
    assert reader.usage == CanonicalUsage(input_tokens=5, output_tokens=2)
    expected = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
    assert stop_reason(as_anthropic(reader, chunks)) == expected.get(reason, "refusal")


def test_a_writer_itself_closes_a_choice_once() -> None:
    reader, _ = read(event(text("a", finish="stop")))
    late = Chunk(b'data: {"choices":[{"index":0,"delta":{}}]}\n\n', "openai")
    ended = Chunk(b'data: {"choices":[]}\n\n', "openai", finish_reason="stop")

    assert finishes(as_openai(reader, [ended, late])) == []


@pytest.mark.parametrize(
    "broken",
    [
        b'data: {"choices":[{"delta":{"content":"lo\n\n',
        b'data: {"choices":[{"delta":"lo"}]}\n\n',
        b'data: {"choices":[{"delta":{"content":7}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b"data: lo\n\n",
    ],
)
@pytest.mark.parametrize("begun", [text("Hel"), CALL, choice('"reasoning_content":"Hm"')])
def test_an_event_that_cannot_be_read_is_a_cut_once_content_has_begun(
    broken: bytes, begun: str
) -> None:
    reader, _ = read(event(begun), broken, event(text("!", finish="stop")), DONE)

    assert isinstance(reader.failure, errors.StreamBroken)
    assert not reader.finished


@pytest.mark.parametrize("broken", [b"event: x\ndata: {\n\n", b'data: {"type":7}\n\n'])
def test_the_same_in_the_other_dialect(broken: bytes) -> None:
    delta = {"type": "text_delta", "text": "Hel"}
    reader, _ = read(
        START, block_event("content_block_delta", index=0, delta=delta), broken, wire="anthropic"
    )

    assert isinstance(reader.failure, errors.StreamBroken)


@pytest.mark.parametrize("beat", [b"ping", b"", b"null", b"keep-alive", b"{}", b"[]", b'""'])
def test_a_heartbeat_is_no_content(beat: bytes) -> None:
    reader, chunks = read(
        event(text("Hel")),
        b"data: " + beat + b"\n\n",
        b": comment\n\n",
        event(text("lo", finish="stop")),
        DONE,
    )

    assert (reader.failure, reader.finished) == (None, True)
    assert "".join(chunk.text for chunk in chunks) == "Hello"


@pytest.mark.parametrize(
    "odd",
    [
        '{"id":7,"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}',
        '{"choices":[{"index":"0","delta":{"content":"Hi"},"finish_reason":"stop"}]}',
        '{"choices":[{"delta":{"content":"Hi"},"finish_reason":{"type":"stop"}}]}',
        '{"choices":[{"delta":{"content":{"type":"text","text":"Hi"}},"finish_reason":"stop"}]}',
        '{"choices":[{"index":0,"delta":{"content":["H","i"]},"finish_reason":"stop"}]}',
        '{"choices":[{"index":0,"text":"Hi","finish_reason":"stop"}]}',
        '{"choices":[{"index":0,"delta":{"content":"Hi","refusal":null},'
        '"logprobs":{"x":NaN},"finish_reason":"stop"}]}',
        '{"system_fingerprint":7,"created":"now","choices":[{"index":0,"delta":'
        '{"content":"Hi","reasoning":{"text":"h"}},"finish_reason":"stop"}]}',
    ],
)
def test_odd_shapes_of_what_does_not_matter_are_read(odd: str) -> None:
    reader, chunks = read(f"data: {odd}\n\n".encode(), DONE)

    assert (reader.failure, reader.finished) == (None, True)
    assert "".join(chunk.text for chunk in chunks) == "Hi"
    said = [
        each["delta"]["text"]
        for each in as_anthropic(reader, chunks)
        if "text" in str(each)
        and each["type"] == "content_block_delta"
        and each["delta"]["type"] == "text_delta"
    ]
    assert said == ["Hi"]


def test_arguments_that_are_an_object_are_read_as_text() -> None:
    call = choice('"tool_calls":[{"id":"c1","function":{"name":"f","arguments":{"a":1}}}]')

    reader, chunks = read(event(call), event(choice(finish="tool_calls")), DONE)

    deltas = [
        each for each in as_anthropic(reader, chunks) if each["type"] == "content_block_delta"
    ]
    assert [each["delta"] for each in deltas] == [
        {"type": "input_json_delta", "partial_json": '{"a": 1}'}
    ]


def test_halves_of_a_pair_pass_in_their_dialect_and_are_joined_in_the_other() -> None:
    first, second = (event(text(half)) for half in HALVES)
    end = event(choice(finish="stop"))

    reader, chunks = read(first, second, end, DONE)

    assert reader.failure is None
    assert b"".join(chunk.raw for chunk in chunks) == first + second + end + DONE
    said = [
        each["delta"]["text"]
        for each in as_anthropic(reader, chunks)
        if each["type"] == "content_block_delta"
    ]
    assert said == [SMILE]


def test_the_same_from_the_other_dialect() -> None:
    deltas = [
        f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":0,"delta":'
        f'{{"type":"text_delta","text":"{half}"}}}}\n\n'.encode()
        for half in HALVES
    ]
    end = block_event(
        "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}
    )

    reader, chunks = read(START, *deltas, end, block_event("message_stop"), wire="anthropic")

    assert reader.failure is None
    said = [
        each["choices"][0]["delta"].get("content")
        for each in as_openai(reader, chunks)
        if each["choices"]
    ]
    assert "".join(word or "" for word in said) == SMILE
    assert [chunk.raw for chunk in chunks[1:3]] == deltas


@pytest.mark.parametrize("half", HALVES)
def test_half_a_pair_at_the_end_of_a_block_is_said_in_the_other_dialect(half: str) -> None:
    delta = {"type": "text_delta", "text": json.loads(f'"a{half}"')}
    pieces = [
        block_event("content_block_delta", index=0, delta=delta),
        block_event("content_block_stop", index=0),
        block_event("message_delta", delta={"stop_reason": "end_turn"}),
    ]
    reader, chunks = read(START, *pieces, wire="anthropic")

    said = [
        each["choices"][0]["delta"].get("content")
        for each in as_openai(reader, chunks)
        if each["choices"]
    ]
    assert "".join(word or "" for word in said) == delta["text"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("stream", [True, False])
def test_half_a_pair_alone_is_usable_in_both_dialects(half: str, stream: bool) -> None:
    lone = json.loads(f'"{half}"')
    if stream:
        reader, chunks = read(event(text(f"a{half}", finish="stop")), DONE)
        (first, *_) = as_openai(reader, chunks)
        assert first["choices"][0]["delta"]["content"] == f"a{lone}"
        said = [
            each["delta"]["text"]
            for each in as_anthropic(reader, chunks)
            if each["type"] == "content_block_delta"
        ]
        assert said == [f"a{lone}"]
        return
    body = f'{{"choices":[{{"index":0,"message":{{"content":"a{half}"}},"finish_reason":"stop"}}]}}'
    reader, chunks = read(body.encode(), stream=False)
    whole = as_openai(reader, chunks, stream=False)
    assert whole["choices"][0]["message"]["content"] == f"a{lone}"
    chunks[0].dialect = ""
    assert as_anthropic(reader, chunks, stream=False)["content"] == [
        {"type": "text", "text": f"a{lone}"}
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4096])
def test_a_byte_order_mark_before_a_stream_is_none_of_it(size: int) -> None:
    data = b"\xef\xbb\xbf" + event(text("Hi", finish="stop")) + DONE

    reader, chunks = read(*(data[at : at + size] for at in range(0, len(data), size)))

    assert reader.finished
    assert chunks[0].text == "Hi"


@pytest.mark.parametrize(
    "said",
    [
        b'error: {"code":500,"message":"slot broke","type":"server_error"}\n\n',
        b'{"error":{"message":"slot broke"}}\n\n',
        b'data: {"object":"error","message":"slot broke","code":500}\n\n',
        b'event: error\ndata: {"message":"slot broke"}\n\n',
        b'data: {"error":"slot broke","error_type":"generation"}\n\n',
    ],
)
def test_errors_inside_a_stream_are_read_however_they_are_framed(said: bytes) -> None:
    reader, _ = read(event(text("Hel")), said)

    assert isinstance(reader.failure, errors.UpstreamFailed)
    assert reader.failure.message == "slot broke"
