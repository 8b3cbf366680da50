"""What an OpenAI-like answer's bytes become before a client sees them, and what stays."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.chat import Chunk
from providers.wires import finish_reasons
from providers.wires.openai import rewriting
from providers.wires.openai.deltas import Choice, Delta
from providers.wires.openai.reader import StreamReader, WholeReader
from providers.wires.usage import SUBSET

OWN = sorted(finish_reasons.OPENAI_WORDS)
OTHERS = ["end_turn", "max_tokens", "tool_use", "eos", "stop_sequence", "refusal", "END_TURN"]
UNKNOWN = ["because", "done"]


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def answered(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c-1", "model": "fox-1", "choices": list(choices), **more}


def delta(index: int = 0, *, finish: Any = None, **said: Any) -> dict[str, Any]:
    return {"index": index, "delta": said, "finish_reason": finish}


def call(number: int | None, **function: Any) -> dict[str, Any]:
    numbered = {} if number is None else {"index": number}
    return {**numbered, "function": function}


def streamed(*events: bytes) -> tuple[StreamReader, bytes]:
    """The reader, and all that a client of the same dialect is shown as it came."""
    reader = StreamReader(SUBSET, choices=1, model="fox")
    chunks = [chunk for each in events for chunk in reader.feed(each)] + reader.end()
    return reader, b"".join(chunk.raw for chunk in chunks if not chunk.hidden)


def documents(shown: bytes) -> list[dict[str, Any]]:
    said = [line.removeprefix(b"data: ") for line in shown.split(b"\n\n") if line]
    return [json.loads(each) for each in said if each != b"[DONE]"]


# --- finish reasons -----------------------------------------------------------------------------


@pytest.mark.parametrize("word", OWN)
def test_a_word_of_this_dialect_is_handed_on_to_the_byte(word: str) -> None:
    said = event(**answered(delta(content="a"))) + event(**answered(delta(finish=word)))

    _, shown = streamed(said)

    assert shown == said
    assert not rewriting.is_foreign(word)


@pytest.mark.parametrize("word", OTHERS)
def test_a_word_of_another_dialect_becomes_this_one_s(word: str) -> None:
    _, shown = streamed(
        event(**answered(delta(content="a"))), event(**answered(delta(finish=word)))
    )

    last = documents(shown)[-1]["choices"][0]["finish_reason"]
    assert last == finish_reasons.canonical(word)
    assert last in finish_reasons.OPENAI_WORDS


@pytest.mark.parametrize("word", UNKNOWN)
def test_a_word_that_nobody_knows_is_handed_on(word: str) -> None:
    reader, shown = streamed(
        event(**answered(delta(content="a"))), event(**answered(delta(finish=word)))
    )

    assert documents(shown)[-1]["choices"][0]["finish_reason"] == word
    assert (reader.finished, reader.finish_reason) == (True, word)


@given(st.none() | st.integers() | st.text(max_size=20) | st.sampled_from(OWN + OTHERS))
def test_only_text_of_another_dialect_is_foreign(reason: Any) -> None:
    expected = isinstance(reason, str) and reason not in ("", *OWN)
    assert rewriting.is_foreign(reason) is expected


@pytest.mark.parametrize("is_event", [True, False])
def test_only_the_foreign_choice_is_written_anew(is_event: bool) -> None:
    data = json.dumps(answered(delta(0, finish="length"), delta(1, finish="end_turn"))).encode()

    written = rewriting.in_own_words(data, is_event=is_event)

    assert written.startswith(b"data: ") is is_event
    document = json.loads(written.removeprefix(b"data: "))
    assert [each["finish_reason"] for each in document["choices"]] == ["length", "stop"]
    assert document["id"] == "c-1"


def test_a_choice_without_a_reason_stays_without() -> None:
    data = json.dumps(answered({"index": 0, "delta": {}}, delta(1, finish="eos"))).encode()

    first, second = json.loads(rewriting.in_own_words(data, is_event=False))["choices"]

    assert "finish_reason" not in first
    assert second["finish_reason"] == "stop"


# --- usage --------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
LATER = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_usage_beside_content_is_told_once_and_at_the_end() -> None:
    reader, shown = streamed(
        event(**answered(delta(content="a"), usage=USAGE)),
        event(**answered(delta(finish="stop"), usage=LATER)),
    )

    assert [each.get("usage") for each in documents(shown)] == [None, None]
    assert [each["choices"][0]["delta"] for each in documents(shown)] == [{"content": "a"}, {}]
    assert reader.usage is not None
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (3, 6)


def test_usage_alone_is_not_shown_at_all() -> None:
    reader, shown = streamed(
        event(**answered(delta(content="a"))),
        event(**answered(delta(finish="stop"))),
        event(**answered(usage=USAGE)),
    )

    assert len(documents(shown)) == 2
    assert reader.usage is not None


@given(
    st.dictionaries(
        st.sampled_from(["id", "model", "x", "system_fingerprint"]),
        st.none() | st.integers() | st.text(max_size=5),
    )
)
def test_nothing_but_the_usage_is_taken_out(fields: dict[str, Any]) -> None:
    data = json.dumps({**fields, "usage": USAGE, "choices": []}).encode()

    assert json.loads(rewriting.without_usage(data)) == {**fields, "choices": []}


# --- tool calls ---------------------------------------------------------------------------------


def chunk_of(*calls: dict[str, Any]) -> Chunk:
    return Chunk(b"", "openai", tool_calls=list(calls) or None)


def choice_of(*calls: dict[str, Any]) -> Choice:
    return Choice(delta=Delta(tool_calls=list(calls)))


def test_calls_that_are_numbered_as_they_are_read_go_on_as_they_came() -> None:
    calls = [call(0, name="f", arguments=""), call(1, name="g", arguments="")]

    assert not rewriting.is_renumbered(choice_of(*calls), chunk_of(*calls))
    assert not rewriting.is_renumbered(Choice(delta=Delta(content="a")), chunk_of())


@pytest.mark.parametrize("number", [None, 0, 7])
def test_a_call_of_another_number_is_written_anew(number: int | None) -> None:
    came, read = call(number, name="f"), call(1, name="f")

    assert rewriting.is_renumbered(choice_of(came), chunk_of(read))


def test_what_tool_calls_were_before_has_no_number() -> None:
    before = Choice(delta=Delta(function_call={"name": "f", "arguments": "{}"}))

    assert not rewriting.is_renumbered(before, chunk_of(call(0, name="f", arguments="{}")))


def test_two_calls_that_a_server_numbers_alike_are_told_apart() -> None:
    """SDKs join deltas by their number: two calls of one number would be one, with no JSON."""
    first = {"id": "a", "type": "function", **call(0, name="f", arguments="{}")}
    second = {"id": "b", "type": "function", **call(0, name="g", arguments="{}")}

    _, shown = streamed(
        event(**answered(delta(tool_calls=[first]))),
        event(**answered(delta(tool_calls=[second]))),
        event(**answered(delta(finish="tool_calls"))),
    )

    numbers = [
        each["index"]
        for document in documents(shown)
        for each in document["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert numbers == [0, 1]


def test_calls_are_put_into_their_own_choices() -> None:
    raw = event(
        **answered(
            delta(0, tool_calls=[call(5, name="f")]),
            delta(1, content="text"),
            delta(2, tool_calls=[call(5, name="g")]),
        )
    )
    chunks = [chunk_of(call(0, name="f")), chunk_of(), chunk_of(call(1, name="g"))]

    (document,) = documents(rewriting.with_calls(raw, chunks, is_event=True))

    one, two, three = (each["delta"] for each in document["choices"])
    assert one["tool_calls"][0]["index"] == 0
    assert two == {"content": "text"}
    assert three["tool_calls"][0]["index"] == 1


def test_a_whole_answer_of_the_usual_shape_is_handed_on_to_the_byte() -> None:
    body = json.dumps(
        {
            "id": "c-1",
            "object": "chat.completion",
            "model": "fox",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "hello"},
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
        }
    ).encode()
    reader = WholeReader(SUBSET, model="fox")

    reader.feed(body)
    (chunk,) = reader.end()

    assert chunk.raw == body
    assert (chunk.text, chunk.finish_reason) == ("hello", "stop")


@given(st.binary(max_size=200))
def test_an_event_is_framed_as_servers_frame_it(data: bytes) -> None:
    framed = rewriting.framed(data)

    assert framed == b"data: " + data + b"\n\n"
