"""What upstreams answer when they misbehave, and what is still an answer."""

import re
from typing import Any

import pytest

from billing.usage import CanonicalUsage
from providers import errors
from providers.chat import Chunk, ResponseReader
from providers.wires import whole_answers
from providers.wires.anthropic import reader as anthropic_reader
from providers.wires.openai import reader as openai_reader
from providers.wires.registry import wire_for
from providers.wires.usage import SUBSET
from tests.factories import offer_view, openai_request
from tests.providers.answers import ANSWERS

USAGE = CanonicalUsage(input_tokens=20, output_tokens=8, cache_read_tokens=12, reasoning_tokens=3)
DIALECTS = ("openai", "anthropic")


def reader_of(dialect: Any, *, stream: bool = True, **asked: Any) -> ResponseReader:
    request = openai_request(stream=stream, **asked)
    return wire_for(dialect).reader(request, offer_view(wire=dialect))


def read(reader: ResponseReader, *pieces: bytes) -> list[Chunk]:
    chunks = [chunk for piece in pieces for chunk in reader.feed(piece)]
    return chunks + reader.end()


def event(choices: str, rest: str = "") -> bytes:
    return f'data: {{"id":"up1","choices":[{choices}]{rest}}}\n\n'.encode()


def delta(content: str, *, index: int = 0, finish: str = "null") -> bytes:
    return event(f'{{"index":{index},"delta":{{"content":"{content}"}},"finish_reason":{finish}}}')


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_whole_stream_is_finished_with_usage_and_untouched_bytes(dialect: str) -> None:
    answer = ANSWERS[dialect, "text", True]
    reader = reader_of(dialect)

    chunks = read(reader, answer)

    assert b"".join(chunk.raw for chunk in chunks) == answer
    assert (reader.finished, reader.finish_reason, reader.usage) == (True, "stop", USAGE)
    assert reader.failure is None
    assert chunks[-1].last


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_pieces_of_any_size_read_the_same(dialect: str, size: int) -> None:
    answer = ANSWERS[dialect, "tools", True]

    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]

    assert read(reader_of(dialect), *pieces) == read(reader_of(dialect), answer)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cut_before_the_finish_is_not_finished(dialect: str) -> None:
    answer = ANSWERS[dialect, "text", True]
    reader = reader_of(dialect)

    chunks = read(reader, answer[: answer.index(b"rld")])

    assert not reader.finished
    assert "".join(chunk.text for chunk in chunks) == "Hel"


def test_a_missing_done_after_the_finish_is_a_success() -> None:
    reader = reader_of("openai")

    read(reader, ANSWERS["openai", "text", True].replace(b"data: [DONE]\n\n", b""))

    assert (reader.finished, reader.usage) == (True, USAGE)


def test_a_missing_message_stop_after_the_stop_reason_is_a_success() -> None:
    answer = ANSWERS["anthropic", "text", True]
    reader = reader_of("anthropic")

    read(reader, answer[: answer.index(b"event: message_stop")])

    assert (reader.finished, reader.usage) == (True, USAGE)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_malformed_chunk_is_skipped(dialect: str) -> None:
    reader = reader_of(dialect)

    chunks = read(reader, b'data: {"broken": \n\n', ANSWERS[dialect, "text", True])

    assert "".join(chunk.text for chunk in chunks) == "Hello, wörld."
    assert reader.finished


@pytest.mark.parametrize("dialect", DIALECTS)
def test_nothing_but_malformed_chunks_is_a_failure(dialect: str) -> None:
    reader = reader_of(dialect)

    read(reader, b"data: {\n\n" * 101)

    assert isinstance(reader.failure, errors.ProtocolError)


def test_a_null_usage_does_not_count_and_the_last_one_does() -> None:
    reader = reader_of("openai")
    counts = ',"usage":{{"prompt_tokens":{0},"completion_tokens":{1},"total_tokens":{2}}}'

    read(
        reader,
        event('{"index":0,"delta":{"content":"a"}}', ',"usage":null'),
        event('{"index":0,"delta":{"content":"b"}}', counts.format(5, 1, 6)),
        event("", counts.format(5, 2, 7)),
    )

    assert reader.usage == CanonicalUsage(input_tokens=5, output_tokens=2)


def test_usage_beside_content_is_taken_out_of_what_the_client_sees() -> None:
    reader = reader_of("openai")
    usage = ',"usage":{"prompt_tokens":5,"completion_tokens":1},"x":1'

    chunks = read(
        reader, event('{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}', usage)
    )

    assert [(chunk.text, chunk.hidden, chunk.raw) for chunk in chunks] == [
        (
            "a",
            False,
            b'data: {"id":"up1","choices":[{"index":0,"delta":{"content":"a"},'
            b'"finish_reason":"stop"}],"x":1}\n\n',
        )
    ]
    assert reader.usage == CanonicalUsage(input_tokens=5, output_tokens=1)


def test_usage_that_does_not_add_up_is_none_with_a_reason() -> None:
    reader = reader_of("openai")

    read(
        reader,
        event("", ',"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":60}'),
    )

    assert reader.usage is None
    assert reader.usage_problem == "total_tokens is 60, but 5 and 1 make 6"


def test_a_stream_of_anthropic_without_output_counts_has_no_usage() -> None:
    answer = ANSWERS["anthropic", "text", True]
    start, _, rest = answer.partition(b'"usage":{"output_tokens":8')
    reader = reader_of("anthropic")

    read(reader, start + b'"usage":{"ignored":8' + rest)

    assert reader.finished
    assert reader.usage is None
    assert reader.usage_problem == ""


def test_anthropic_s_count_of_the_prompt_is_known_before_the_answer() -> None:
    answer = ANSWERS["anthropic", "text", True]
    start, _, _ = answer.partition(b"event: content_block_start")
    reader = reader_of("anthropic")

    reader.feed(start)

    assert reader.usage is None
    assert reader.prompt_usage == CanonicalUsage(
        input_tokens=20, output_tokens=0, cache_read_tokens=12
    )


def test_a_function_call_of_the_old_kind_counts_as_delivered() -> None:
    said = '{"index":0,"delta":{"function_call":{"arguments":"{\\"a\\":1}"}},"finish_reason":null}'
    reader = reader_of("openai")

    (chunk,) = reader.feed(event(said))

    assert chunk.tool_calls == [{"index": 0, "function": {"arguments": '{"a":1}'}}]


@pytest.mark.parametrize(
    ("dialect", "data", "expected"),
    [
        (
            "openai",
            b'data: {"error":{"message":"Overloaded","type":"overloaded_error"}}\n\n',
            errors.Overloaded,
        ),
        ("openai", b'event: error\ndata: {"message":"boom"}\n\n', errors.UpstreamFailed),
        (
            "openai",
            event('{"index":0,"delta":{"content":""},"finish_reason":"error"}'),
            errors.StreamBroken,
        ),
        (
            "anthropic",
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error",'
            b'"message":"Overloaded"}}\n\n',
            errors.Overloaded,
        ),
    ],
)
def test_an_error_inside_a_stream_is_a_failure_and_what_follows_is_not_read(
    dialect: str, data: bytes, expected: type[errors.ProviderError]
) -> None:
    reader = reader_of(dialect)
    before = ANSWERS[dialect, "text", True].partition(b"rld")[0]

    chunks = reader.feed(before[: before.rindex(b"\n\n") + 2] + data)

    assert "".join(chunk.text for chunk in chunks) == "Hel"
    assert type(reader.failure) is expected
    assert reader.feed(ANSWERS[dialect, "text", True]) == []
    assert reader.end() == []
    assert not reader.finished


def test_every_choice_must_finish() -> None:
    reader = reader_of("openai", n=2)

    reader.feed(delta("a", index=0) + delta("b", index=1) + delta("", index=0, finish='"stop"'))
    assert not reader.finished

    reader.feed(delta("", index=1, finish='"length"'))
    assert reader.finished


def test_two_choices_in_one_event_pass_its_bytes_once() -> None:
    both = event('{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}')

    chunks = reader_of("openai", n=2).feed(both)

    assert [(c.index, c.text, c.raw) for c in chunks] == [(0, "a", both), (1, "b", b"")]


def test_reasoning_is_read_under_both_of_its_names() -> None:
    chunks = reader_of("openai").feed(
        event('{"index":0,"delta":{"reasoning_content":"a"}}')
        + event('{"index":0,"delta":{"reasoning":"b"}}')
    )

    assert [chunk.reasoning for chunk in chunks] == ["a", "b"]


def test_content_in_parts_counts_as_text() -> None:
    parts = '{"index":0,"delta":{"content":[{"type":"text","text":"a"},{"type":"x"}]}}'

    assert [chunk.text for chunk in reader_of("openai").feed(event(parts))] == ["a"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_upstream_that_does_not_stream_is_read_all_the_same(dialect: str) -> None:
    reader = reader_of(dialect)

    chunks = read(reader, ANSWERS[dialect, "text", False])

    assert [(c.text, c.dialect, c.raw) for c in chunks] == [("Hello, wörld.", "", b"")]
    assert (reader.finished, reader.usage) == (True, USAGE)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_vendor_extras_in_usage_are_kept_beside_the_counts(dialect: str) -> None:
    reader = reader_of(dialect, stream=False)
    name = b'"usage":{'
    extras = b'"usage":{"speculation":{"drafted":9},"cost":0.5,'

    read(reader, ANSWERS[dialect, "text", False].replace(name, extras))

    assert reader.usage == USAGE
    assert reader.usage_extra == {"speculation": {"drafted": 9}}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{", b"\xff"])
def test_a_whole_answer_that_is_none_is_a_failure(dialect: str, body: bytes) -> None:
    reader = reader_of(dialect, stream=False)

    assert read(reader, body) == []
    assert isinstance(reader.failure, errors.ProtocolError)
    assert not reader.finished


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("openai", b'{"error":{"message":"x","code":429}}'),
        ("anthropic", b'{"type":"error","error":{"type":"rate_limit_error","message":"x"}}'),
    ],
)
def test_an_error_in_a_whole_answer_is_a_failure(dialect: str, body: bytes) -> None:
    reader = reader_of(dialect, stream=False)

    assert read(reader, body) == []
    assert isinstance(reader.failure, errors.RateLimited)


def test_a_whole_answer_without_a_finish_reason_is_not_finished() -> None:
    reader = reader_of("openai", stream=False)

    read(reader, b'{"choices":[{"index":0,"message":{"content":"half"},"finish_reason":null}]}')

    assert not reader.finished


@pytest.mark.parametrize(
    "reader", [openai_reader.WholeReader(SUBSET), anthropic_reader.WholeReader()]
)
def test_an_endless_answer_is_refused_at_the_bound(
    monkeypatch: pytest.MonkeyPatch, reader: Any
) -> None:
    monkeypatch.setattr(whole_answers, "WHOLE_BYTES_MAX", 1_000)

    reader.feed(b"x" * 1_001)

    assert isinstance(reader.failure, errors.ProtocolError)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_anthropic_s_stop_reasons(reason: str, expected: str) -> None:
    reader = reader_of("anthropic", stream=False)

    read(reader, b'{"type":"message","content":[],"stop_reason":"%b"}' % reason.encode())

    assert reader.finish_reason == expected


@pytest.mark.parametrize(
    ("stated", "tier"),
    [
        ('"default"', "default"),
        ('"Priority"', "priority"),
        ('"auto"', ""),
        ("null", ""),
        ('""', ""),
        ("7", "unreadable"),
        ('{"a":1}', "unreadable"),
        ('"' + "x" * 500 + '"', "x" * 40),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_the_tier_that_an_openai_answer_says_it_served(
    stated: str, tier: str, stream: bool
) -> None:
    reader = reader_of("openai", stream=stream)
    answer = ANSWERS["openai", "text", stream]
    marked = answer.replace(b'"choices"', f'"service_tier":{stated},"choices"'.encode())

    read(reader, marked)

    assert reader.served_tier == tier
    assert (reader.finished, reader.usage) == (True, USAGE)


@pytest.mark.parametrize(
    ("stated", "tier"),
    [
        ('"service_tier":"standard"', "standard"),
        ('"service_tier":"priority"', "priority"),
        ('"service_tier":"standard","speed":"standard"', "standard"),
        ('"service_tier":"standard","speed":"fast"', "fast"),
        ('"service_tier":null', ""),
        ('"service_tier":[1]', "unreadable"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_the_tier_that_an_anthropic_answer_says_it_served(
    stated: str, tier: str, stream: bool
) -> None:
    reader = reader_of("anthropic", stream=stream)
    answer = ANSWERS["anthropic", "text", stream]
    marked = re.sub(rb'"usage": ?{', b'"usage":{' + stated.encode() + b",", answer)
    assert marked != answer

    read(reader, marked)

    assert reader.served_tier == tier
    assert (reader.finished, reader.usage) == (True, USAGE)
