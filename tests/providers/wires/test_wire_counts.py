"""Counts as servers send them: in other types, in the wrong order, twice, or not at all."""

import json
from typing import Any

import pytest

from billing.usage import CanonicalUsage
from providers.chat import ResponseReader
from providers.wires.registry import wire_for
from tests.factories import offer_view, openai_request

SAID = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
SOME = CanonicalUsage(input_tokens=10, output_tokens=3)


def reader_of(dialect: Any, *, stream: bool) -> ResponseReader:
    return wire_for(dialect).reader(openai_request(stream=stream), offer_view(wire=dialect))


def openai_stream(*usages: Any) -> bytes:
    events: list[Any] = [{"choices": [SAID]}]
    events += [{"choices": [], "usage": usage} for usage in usages]
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)


def openai_whole(usage: Any) -> bytes:
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def anthropic_stream(*usages: Any) -> bytes:
    """The first stands in `message_start`."""
    first, *later = usages
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "usage": first}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        *(
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
            for usage in later
        ),
        {"type": "message_stop"},
    ]
    return b"".join(
        f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events
    )


def anthropic_whole(usage: Any) -> bytes:
    content = [{"type": "text", "text": "a"}]
    return json.dumps({"content": content, "stop_reason": "end_turn", "usage": usage}).encode()


def openai(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def anthropic(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"input_tokens": prompt, "output_tokens": completion, **more}


@pytest.mark.parametrize(
    ("stated", "usage", "problem"),
    [
        ((10, 3), SOME, ""),
        ((10.0, 3.0), SOME, ""),
        ((1e1, 3), SOME, ""),
        ((10.5, 3), None, "Expected `int | null`, got `float`"),
        (("10", "3"), None, "Expected `int | null`, got `str`"),
        ((True, 3), None, "Expected `int | null`, got `bool`"),
        ((-5, 3), None, "negative input_tokens"),
        ((10, -3), None, "negative output_tokens"),
        # What is not counted is no wrong count: as if no usage had come.
        ((None, None), None, ""),
        ((10, None), None, ""),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_count_is_a_whole_number_and_nothing_else_is_one(
    dialect: str, stream: bool, stated: tuple[Any, Any], usage: CanonicalUsage | None, problem: str
) -> None:
    # given
    said = openai(*stated) if dialect == "openai" else anthropic(*stated)
    makers = {
        ("openai", True): lambda: openai_stream(said),
        ("openai", False): lambda: openai_whole(said),
        ("anthropic", True): lambda: anthropic_stream({}, said),
        ("anthropic", False): lambda: anthropic_whole(said),
    }
    reader = reader_of(dialect, stream=stream)
    # when
    chunks = reader.feed(makers[dialect, stream]()) + reader.end()
    # then: whatever is wrong with the counts, the answer is one
    assert (reader.usage, reader.usage_problem.partition(" - ")[0]) == (usage, problem)
    assert (reader.failure, reader.finished) == (None, True)
    assert "".join(chunk.text for chunk in chunks) == "a"


@pytest.mark.parametrize("nonsense", ["10", 7, [10, 3], True])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_usage_that_is_no_object_spoils_nothing_but_the_count(
    dialect: str, stream: bool, nonsense: Any
) -> None:
    # given
    makers = {
        ("openai", True): lambda: openai_stream(nonsense),
        ("openai", False): lambda: openai_whole(nonsense),
        ("anthropic", True): lambda: anthropic_stream(anthropic(10, 0), nonsense),
        ("anthropic", False): lambda: anthropic_whole(nonsense),
    }
    reader = reader_of(dialect, stream=stream)
    # when
    chunks = reader.feed(makers[dialect, stream]()) + reader.end()
    # then
    assert (reader.usage, reader.finished, reader.failure) == (None, True, None)
    assert reader.usage_problem
    assert "".join(chunk.text for chunk in chunks) == "a"


@pytest.mark.parametrize(
    ("first", "second", "usage"),
    [
        ((10, 3), (0, 0), SOME),
        ((10, 3), (10, 0), SOME),
        ((10, 3), (0, 4), CanonicalUsage(input_tokens=10, output_tokens=4)),
        ((10, 1), (10, 3), SOME),
        ((10, 3), (12, 2), CanonicalUsage(input_tokens=12, output_tokens=3)),
        ((0, 0), (10, 3), SOME),
        ((10, 3), (None, None), SOME),
    ],
)
def test_of_two_counts_the_larger_is_true(
    first: tuple[int, int], second: tuple[int, int], usage: CanonicalUsage
) -> None:
    # given
    readers = {dialect: reader_of(dialect, stream=True) for dialect in ("openai", "anthropic")}
    # when
    readers["openai"].feed(openai_stream(openai(*first), openai(*second)))
    readers["anthropic"].feed(anthropic_stream({}, anthropic(*first), anthropic(*second)))
    # then
    assert [reader.usage for reader in readers.values()] == [usage, usage]


def test_a_prompt_that_was_counted_at_the_start_is_not_taken_back_at_the_end() -> None:
    # given
    reader = reader_of("anthropic", stream=True)
    start = anthropic(10, 1, cache_read_input_tokens=90)
    # when: a proxy that fills in zeros
    reader.feed(anthropic_stream(start, anthropic(0, 3, cache_read_input_tokens=0)))
    # then
    assert reader.usage == CanonicalUsage(input_tokens=100, cache_read_tokens=90, output_tokens=3)


def test_what_was_cached_after_all_is_not_counted_twice() -> None:
    # given: at the start all of it seemed new
    reader = reader_of("anthropic", stream=True)
    # when
    reader.feed(anthropic_stream(anthropic(100, 1), anthropic(20, 3, cache_read_input_tokens=80)))
    # then
    assert reader.usage == CanonicalUsage(input_tokens=100, cache_read_tokens=80, output_tokens=3)
