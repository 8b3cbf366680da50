"""What servers of others send, from their bytes to what clients of both dialects see.

Each answer goes through the reader of its wire and the writers of both surfaces, as in a request.
"""

import json
from typing import Any

import pytest

from billing.usage import CanonicalUsage
from gateway.dataplane.surfaces import anthropic_messages, openai_chat
from providers import errors
from providers.chat import Chunk, Receipt, ResponseReader
from providers.wires.registry import wire_for
from tests.factories import anthropic_request, offer_view, openai_request

OFFER = offer_view()
HALVES = ("\\ud83d", "\\ude00")
SMILE = "\U0001f600"


def event(*choices: str, usage: str = "", model: str = "small") -> bytes:
    rest = f',"usage":{usage}' if usage else ""
    return (
        f'data: {{"id":"up1","model":"{model}","choices":[{",".join(choices)}]{rest}}}\n\n'.encode()
    )


def choice(delta: str = "", *, index: int = 0, finish: str | None = None) -> str:
    reason = json.dumps(finish)
    return f'{{"index":{index},"delta":{{{delta}}},"finish_reason":{reason}}}'


def text(words: str, **more: Any) -> str:
    return choice(f'"content":"{words}"', **more)


CALL = choice(
    '"tool_calls":[{"index":0,"id":"c1","type":"function",'
    '"function":{"name":"f","arguments":"{}"}}]'
)
COUNTS = '{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
DONE = b"data: [DONE]\n\n"
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m1","type":"message",'
    b'"role":"assistant","model":"small","content":[],"usage":{"input_tokens":5}}}\n\n'
)


def block_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def read(*pieces: bytes, wire: Any = "openai", stream: bool = True, n: int = 1) -> Any:
    reader = wire_for(wire).reader(openai_request(stream=stream, n=n), OFFER)
    chunks = [chunk for piece in pieces for chunk in reader.feed(piece)]
    return reader, chunks + reader.end()


def receipt(reader: ResponseReader) -> Receipt:
    return Receipt(
        request_id="r1",
        model=OFFER.model,
        provider="acme",
        sku="acme/small",
        usage=reader.usage or CanonicalUsage(input_tokens=1, output_tokens=1),
        usage_source="provider",
        cost_pico=1,
        choices_missing=reader.choices_missing,
    )


def as_openai(reader: ResponseReader, chunks: list[Chunk], *, stream: bool = True) -> Any:
    writer = openai_chat.writer(openai_request(stream=stream), request_id="r1", created_s=1)
    writer.model = OFFER.model
    if not stream:
        return json.loads(writer.whole(chunks, receipt(reader)))
    out = b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(receipt(reader))
    data = [each.partition(b"data: ")[2] for each in out.split(b"\n\n")[:-1]]
    return [json.loads(each) for each in data if each != b"[DONE]"]


def as_anthropic(reader: ResponseReader, chunks: list[Chunk], *, stream: bool = True) -> Any:
    request = anthropic_request(stream=stream)
    writer = anthropic_messages.writer(request, request_id="r1", created_s=1)
    writer.model = OFFER.model
    if not stream:
        return json.loads(writer.whole(chunks, receipt(reader)))
    out = b"".join(writer.chunk(chunk) for chunk in chunks) + writer.end(receipt(reader))
    return [json.loads(each.partition(b"data: ")[2]) for each in out.split(b"\n\n")[:-1]]


def finishes(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [
        (each["index"], each["finish_reason"])
        for event in events
        for each in event.get("choices", ())
        if each.get("finish_reason")
    ]


def stop_reason(events: list[dict[str, Any]]) -> str:
    (found,) = [each["delta"]["stop_reason"] for each in events if each["type"] == "message_delta"]
    return str(found)


# 24: what follows a finish


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


# 25: what cannot be read


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


# 26: fewer choices than were asked for


def test_a_server_that_knows_no_n_gave_one_choice_and_it_is_said_so() -> None:
    reader, chunks = read(event(text("Hi", finish="stop")), event(usage=COUNTS), DONE, n=3)

    assert (reader.finished, reader.choices_missing) == (True, 2)
    assert reader.usage == CanonicalUsage(input_tokens=5, output_tokens=2)
    last = as_openai(reader, chunks)[-1]
    assert last["tokenhouse"] == {"choices_missing": 2}


def test_also_where_it_ends_in_order_without_a_done() -> None:
    reader, _ = read(event(text("Hi", finish="stop")), event(usage=COUNTS), n=2)

    assert (reader.finished, reader.choices_missing) == (True, 1)


def test_a_server_that_finishes_its_first_choice_only_gave_one() -> None:
    both = event(text("a"), text("b", index=1))

    reader, chunks = read(both, event(choice(finish="stop")), event(usage=COUNTS), DONE, n=2)

    assert (reader.finished, reader.choices_missing) == (True, 1)
    assert finishes(as_openai(reader, chunks)) == [(0, "stop"), (1, "length")]


def test_without_an_orderly_end_a_choice_that_was_left_open_is_a_cut() -> None:
    reader, _ = read(event(text("a"), text("b", index=1)), event(choice(finish="stop")), n=2)

    assert not reader.finished


def test_a_done_without_any_finish_is_no_answer() -> None:
    reader, _ = read(event(text("a")), DONE)

    assert not reader.finished


def test_a_whole_answer_of_fewer_choices_is_one() -> None:
    body = b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":%b}'

    reader, chunks = read(body % COUNTS.encode(), stream=False, n=2)

    assert (reader.finished, reader.choices_missing) == (True, 1)
    whole = as_openai(reader, chunks, stream=False)
    assert whole["tokenhouse"] == {"choices_missing": 1}
    assert whole["usage"]["completion_tokens"] == 2


def test_choices_without_an_index_are_told_apart_by_their_place() -> None:
    body = (
        b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"},'
        b'{"message":{"content":"b"},"finish_reason":"stop"}]}'
    )

    reader, chunks = read(body, stream=False, n=2)

    assert reader.choices_missing == 0
    assert [(chunk.index, chunk.text) for chunk in chunks] == [(0, "a"), (1, "b")]


# 30: words for an end, and the model's name


WORDS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("eos_token", "stop"),
    ("max_tokens", "length"),
    ("MAX_TOKENS", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("refusal", "content_filter"),
]


@pytest.mark.parametrize(("word", "expected"), WORDS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_word_of_another_kind_is_said_in_openai_s(word: str, expected: str, stream: bool) -> None:
    if stream:
        reader, chunks = read(event(text("Hi", finish=word)), DONE)
        assert finishes(as_openai(reader, chunks)) == [(0, expected)]
    else:
        body = f'{{"choices":[{{"message":{{"content":"Hi"}},"finish_reason":"{word}"}}]}}'
        reader, chunks = read(body.encode(), stream=False)
        whole = as_openai(reader, chunks, stream=False)
        assert whole["choices"][0]["finish_reason"] == expected
    assert (reader.finished, reader.finish_reason) == (True, expected)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("stop_sequence", "stop_sequence"),
        ("pause_turn", "pause_turn"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_word_of_openai_s_is_said_in_anthropic_s(word: str, expected: str, stream: bool) -> None:
    if stream:
        end = block_event("message_delta", delta={"stop_reason": word, "stop_sequence": "x"})
        reader, chunks = read(START, end, block_event("message_stop"), wire="anthropic")
        events = as_anthropic(reader, chunks)
        (delta,) = [each["delta"] for each in events if each["type"] == "message_delta"]
        assert delta == {"stop_reason": expected, "stop_sequence": "x"}
    else:
        body = {"type": "message", "content": [], "stop_reason": word, "stop_sequence": None}
        reader, chunks = read(json.dumps(body).encode(), wire="anthropic", stream=False)
        assert as_anthropic(reader, chunks, stream=False)["stop_reason"] == expected
    assert reader.finished


@pytest.mark.parametrize("word", ["error", "abort", "network_error"])
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_word_for_a_broken_answer_is_no_finish(word: str, wire: str) -> None:
    ends = {
        "openai": event(text("Hi", finish=word)),
        "anthropic": START + block_event("message_delta", delta={"stop_reason": word}),
    }
    reader, _ = read(ends[wire], wire=wire)

    assert isinstance(reader.failure, errors.StreamBroken)
    assert not reader.finished


def test_tool_calls_that_end_with_stop_are_tool_use() -> None:
    reader, chunks = read(event(CALL), event(choice(finish="stop")), DONE)

    assert reader.finish_reason == "tool_calls"
    assert stop_reason(as_anthropic(reader, chunks)) == "tool_use"


@pytest.mark.parametrize("stream", [True, False])
def test_the_same_where_the_server_speaks_anthropic_s(stream: bool) -> None:
    block = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    if stream:
        opened = block_event("content_block_start", index=0, content_block=block)
        end = block_event("message_delta", delta={"stop_reason": "end_turn"})
        reader, chunks = read(START, opened, end, wire="anthropic")
        assert stop_reason(as_anthropic(reader, chunks)) == "tool_use"
    else:
        body = {"type": "message", "content": [block], "stop_reason": "end_turn"}
        reader, chunks = read(json.dumps(body).encode(), wire="anthropic", stream=False)
        assert as_anthropic(reader, chunks, stream=False)["stop_reason"] == "tool_use"
    assert reader.finish_reason == "tool_calls"


def test_an_answer_that_is_translated_bears_one_name_streamed_and_whole() -> None:
    reader, chunks = read(event(text("Hi", finish="stop"), model="vendor-v1"), DONE)
    start = as_anthropic(reader, chunks)[0]
    body = b'{"model":"vendor-v1","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'
    whole = as_anthropic(*read(body, stream=False), stream=False)

    assert start["message"]["model"] == whole["model"] == OFFER.model


@pytest.mark.parametrize("path", ["/srv/models/q4.gguf", "C:\\\\weights\\\\q4.gguf", "~/q4.gguf"])
def test_a_path_is_no_name_that_a_caller_sees(path: str) -> None:
    reader, chunks = read(event(text("Hi"), model=path), event(choice(finish="stop"), model=path))
    assert {each["model"] for each in as_openai(reader, chunks)} == {OFFER.model}

    said = '{"model":"%s","choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}'
    whole = as_openai(*read((said % path).encode(), stream=False), stream=False)
    assert whole["model"] == OFFER.model

    body = b'{"type":"message","model":"%b","content":[],"stop_reason":"end_turn"}'
    whole = as_anthropic(*read(body % path.encode(), wire="anthropic", stream=False), stream=False)
    assert whole["model"] == OFFER.model
