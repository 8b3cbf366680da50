"""How answers of servers of others end: with fewer choices, in other words, under other names."""

import json

import pytest

from billing.usage import CanonicalUsage
from providers import errors
from tests.gateway.foreign import (
    CALL,
    COUNTS,
    DONE,
    OFFER,
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
