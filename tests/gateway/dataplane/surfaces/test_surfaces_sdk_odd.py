"""Answers as other servers send them, whole and streamed, through both dialects, by the SDKs."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import openai
import pytest

from tests.factories import offer_view
from tests.gateway.loopback import Script, serving

Ask = Callable[..., Any]
USAGE = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28}
TOOL: dict[str, Any] = {"type": "object", "properties": {}}
OPENAI_TOOLS = [{"type": "function", "function": {"name": n, "parameters": TOOL}} for n in "fg"]
ANTHROPIC_TOOLS = [{"name": n, "input_schema": TOOL} for n in "fg"]


HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def events(*choices: dict[str, Any]) -> bytes:
    made = [{**HEAD, "choices": [choice]} for choice in choices]
    made.append({**HEAD, "choices": [], "usage": USAGE})
    return b"".join(b"data: %s\n\n" % json.dumps(e).encode() for e in made) + b"data: [DONE]\n\n"


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    return {"index": 0, "delta": said, "finish_reason": finish}


def call(name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


def piece(arguments: str, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"arguments": arguments}}


def of_anthropic(*blocks: tuple[dict[str, Any], list[str]], stops: bool = True) -> bytes:
    """A stream of these content blocks, each with the pieces of JSON that follow its start."""
    message = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": []}
    usage = {"input_tokens": 20, "output_tokens": 1}
    start = {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}
    made: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for at, (block, pieces) in enumerate(blocks):
        made.append({"type": "content_block_start", "index": at, "content_block": block})
        for part in pieces:
            json_delta = {"type": "input_json_delta", "partial_json": part}
            made.append({"type": "content_block_delta", "index": at, "delta": json_delta})
        if stops:
            made.append({"type": "content_block_stop", "index": at})
    ending = {"stop_reason": "tool_use", "stop_sequence": None}
    made.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 8}})
    made.append({"type": "message_stop"})
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in made)


def tool_use(name: str, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"call_{name}", "name": name, "input": given}


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Asks the SDK of `dialect` for what the script answers; returns its final message."""
    with ExitStack() as stack:

        def asking(script: Script, dialect: str, *, stream: bool, **more: Any) -> Any:
            url = stack.enter_context(serving(script))
            user: Any = [{"role": "user", "content": "Say hello."}]
            if dialect == "anthropic":
                client = anthropic.Anthropic(base_url=url, api_key="tk-x", max_retries=0)
                stack.enter_context(client)
                asked = {"model": "small", "max_tokens": 64, "messages": user, **more}
                if not stream:
                    return client.messages.create(**asked)
                with client.messages.stream(**asked) as events_:
                    return events_.get_final_message()
            other = openai.OpenAI(base_url=f"{url}/v1", api_key="tk-x", max_retries=0)
            stack.enter_context(other)
            if not stream:
                return other.chat.completions.create(model="small", messages=user, **more)
            with other.chat.completions.stream(model="small", messages=user, **more) as events_:
                return events_.get_final_completion()

        yield asking


def calls_of(answer: Any) -> list[tuple[str, Any]]:
    """The names and inputs of the calls, whoever's SDK they come from."""
    if hasattr(answer, "content"):
        return [(b.name, b.input) for b in answer.content if b.type == "tool_use"]
    made = answer.choices[0].message.tool_calls or []
    return [(c.function.name, json.loads(c.function.arguments)) for c in made]


def tools_for(dialect: str) -> list[dict[str, Any]]:
    return ANTHROPIC_TOOLS if dialect == "anthropic" else OPENAI_TOOLS


ANTHROPIC_STREAMS = {
    "without arguments": of_anthropic((tool_use("f", {}), []), (tool_use("g", {}), [""])),
    "without an end of block": of_anthropic(
        (tool_use("f", {}), []), (tool_use("g", {}), ["{}"]), stops=False
    ),
    "input null": of_anthropic((tool_use("f", None), []), (tool_use("g", {}), [])),
}


@pytest.mark.parametrize("name", ANTHROPIC_STREAMS)
def test_a_call_without_arguments_adds_up_to_an_empty_object(ask: Ask, name: str) -> None:
    script = Script(offer=offer_view(wire="anthropic"), answer=ANTHROPIC_STREAMS[name])

    answer = ask(script, "openai", stream=True, tools=OPENAI_TOOLS)

    assert calls_of(answer) == [("f", {}), ("g", {})]


@pytest.mark.parametrize("given", [{"a": 1}, '{"a": 1}'])
@pytest.mark.parametrize("stops", [True, False])
def test_an_input_at_the_start_of_its_block_is_the_call_s(
    ask: Ask, given: Any, stops: bool
) -> None:
    stream = of_anthropic(
        (tool_use("f", given), []), (tool_use("g", {}), ['{"b"', ": 2}"]), stops=stops
    )
    script = Script(offer=offer_view(wire="anthropic"), answer=stream)

    answer = ask(script, "openai", stream=True, tools=OPENAI_TOOLS)

    assert calls_of(answer) == [("f", {"a": 1}), ("g", {"b": 2})]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("finish", ["tool_calls", "tool_use"])
def test_a_whole_answer_with_calls_without_arguments(ask: Ask, dialect: str, finish: str) -> None:
    made = [call("f", "", id="a", type="function"), call("g", "{}", id="b", type="function")]
    message = {"role": "assistant", "content": None, "tool_calls": made}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    whole = {"id": "c", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    script = Script(offer=offer_view(), answer=json.dumps(whole).encode())

    answer = ask(script, dialect, stream=False, tools=tools_for(dialect))

    assert calls_of(answer) == [("f", {}), ("g", {})]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("finish_beside", [True, False])
def test_a_stream_whose_calls_get_no_arguments_adds_up_to_empty_objects(
    ask: Ask, dialect: str, finish_beside: bool
) -> None:
    calls = [
        call("f", "", index=0, id="a", type="function"),
        call("g", " ", index=1, id="b", type="function"),
    ]
    deltas = [delta("tool_calls" if finish_beside else None, tool_calls=calls)]
    stream = events(*deltas, *([] if finish_beside else [delta("tool_calls")]))
    script = Script(offer=offer_view(), answer=stream)

    answer = ask(script, dialect, stream=True, tools=tools_for(dialect))

    assert calls_of(answer) == [("f", {}), ("g", {})]


F, G = ("f", {"a": 1}), ("g", {"b": 2})
PARALLEL = {
    "one number for all": [
        [call("f", "", index=0, id="a")],
        [piece('{"a": 1}', index=0)],
        [call("g", '{"b"', index=0, id="b")],
        [piece(": 2}", index=0)],
    ],
    "no numbers": [
        [call("f", '{"a"', id="a")],
        [piece(": 1}")],
        [call("g", '{"b": 2}', id="b")],
    ],
    "no numbers and no ids": [[call("f", '{"a": 1}')], [call("g", '{"b": 2}')]],
    "all at once under one number": [
        [call("f", '{"a": 1}', index=0, id="a"), call("g", '{"b": 2}', index=0, id="b")]
    ],
    "ids repeated with each piece": [
        [call("f", '{"a"', index=0, id="a")],
        [call("", ": 1}", index=0, id="a")],
        [call("g", '{"b": 2}', index=1, id="b")],
    ],
    "interleaved by id": [
        [call("f", '{"a"', id="a"), call("g", '{"b"', id="b")],
        [piece(": 1}", id="a"), piece(": 2}", id="b")],
    ],
    "numbers from one": [
        [call("f", '{"a": 1}', index=1, id="a")],
        [call("g", '{"b": 2}', index=2, id="b")],
    ],
    "as usual": [
        [call("f", '{"a"', index=0, id="a")],
        [piece(": 1}", index=0)],
        [call("g", '{"b": 2}', index=1, id="b")],
    ],
}


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_calls_stay_apart_however_they_are_numbered(
    ask: Ask, name: str, dialect: str
) -> None:
    typed = [[{"type": "function", **c} for c in calls] for calls in PARALLEL[name]]
    stream = events(*(delta(tool_calls=calls) for calls in typed), delta("tool_calls"))
    script = Script(offer=offer_view(), answer=stream)

    answer = ask(script, dialect, stream=True, tools=tools_for(dialect))

    assert calls_of(answer) == [F, G]


def test_the_same_call_twice_is_two_calls(ask: Ask) -> None:
    calls = [[call("f", "{}", index=0)], [call("f", "{}", index=0)]]
    stream = events(*(delta(tool_calls=c) for c in calls), delta("tool_calls"))
    script = Script(offer=offer_view(), answer=stream)

    answer = ask(script, "anthropic", stream=True, tools=ANTHROPIC_TOOLS)

    assert calls_of(answer) == [("f", {}), ("f", {})]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"stop_reason": "END"}, ("stop_sequence", "END")),  # vLLM
        ({"matched_stop": "END"}, ("stop_sequence", "END")),  # SGLang
        ({"stop_reason": 200_012}, ("end_turn", None)),
        ({"matched_stop": 2}, ("end_turn", None)),
        ({"stop_reason": "end_turn"}, ("end_turn", None)),
        ({}, ("end_turn", None)),
    ],
)
def test_the_sequence_that_ended_an_answer_is_told_to_anthropic_s_clients(
    ask: Ask, said: dict[str, Any], expected: tuple[str, str | None], stream: bool
) -> None:
    text = "Hello"
    if stream:
        body = events(delta(content=text), {**delta("stop"), **said})
    else:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **said}
        whole = {"id": "c", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
        body = json.dumps(whole).encode()
    script = Script(offer=offer_view(), answer=body)

    answer = ask(script, "anthropic", stream=stream, stop_sequences=["END"])

    assert (answer.stop_reason, answer.stop_sequence) == expected
    assert answer.content[0].text == text


def test_the_start_of_a_message_tells_about_the_size_of_its_prompt() -> None:
    script = Script(offer=offer_view(), answer=events(delta(content="Hi"), delta("stop")))
    words = "fox " * 1_000

    with serving(script) as url:
        with anthropic.Anthropic(base_url=url, api_key="tk-x", max_retries=0) as client:
            stream = client.messages.create(
                model="small",
                max_tokens=64,
                messages=[{"role": "user", "content": words}],
                stream=True,
            )
            first, *_, last, _stop = list(stream)

    assert first.type == "message_start"
    assert first.message.usage.input_tokens == (len(words) + 30) // 4
    # and the true count comes in the end
    assert last.type == "message_delta"
    assert last.usage.input_tokens == 20


def test_who_wants_no_usage_gets_no_event_without_choices() -> None:
    script = Script(offer=offer_view(), answer=events(delta(content="Hi"), delta("stop")))

    with serving(script) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="tk-x", max_retries=0) as client:

            def chunks(**more: Any) -> list[Any]:
                user: Any = [{"role": "user", "content": "Say hello."}]
                return list(
                    client.chat.completions.create(
                        model="small", messages=user, stream=True, **more
                    )
                )

            without = chunks(stream_options={"include_usage": False})
            usual = chunks()

    assert [c.choices[0].delta.content for c in without] == ["Hi", None]
    assert all(c.usage is None for c in without)
    assert usual[-1].usage.prompt_tokens == 20
    # we are told all the same
    assert json.loads(script.calls[0].body)["stream_options"] == {"include_usage": True}
