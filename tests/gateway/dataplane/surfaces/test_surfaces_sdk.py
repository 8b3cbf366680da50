"""The official SDKs judge: every client dialect over every upstream dialect, and every error."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from billing.usage import CanonicalUsage
from gateway import errors
from tests.factories import offer_view
from tests.gateway.loopback import Script, serving
from tests.providers.answers import ANSWERS

UPSTREAMS = ("openai", "anthropic")
USAGE = CanonicalUsage(input_tokens=20, output_tokens=8, cache_read_tokens=12, reasoning_tokens=3)
TOOL = {
    "name": "weather",
    "description": "The weather in a city.",
    "schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
Clients = tuple[openai.OpenAI, anthropic.Anthropic]
Connect = Callable[[Script], Clients]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Both SDKs at a gateway that follows a script."""
    open_servers: list[Any] = []
    clients: list[Any] = []

    def connected(script: Script) -> Clients:
        server = serving(script)
        base = server.__enter__()
        open_servers.append(server)
        pair = (
            openai.OpenAI(base_url=f"{base}/v1", api_key="tk-test", max_retries=0),
            anthropic.Anthropic(base_url=base, api_key="tk-test", max_retries=0),
        )
        clients.extend(pair)
        return pair

    yield connected
    for client in clients:
        client.close()
    for server in open_servers:
        server.__exit__(None, None, None)


def script_of(upstream: Any, kind: str, *, stream: bool, **changed: Any) -> Script:
    return Script(
        offer=offer_view(wire=upstream), answer=ANSWERS[upstream, kind, stream], **changed
    )


def ask_openai(client: openai.OpenAI, **changed: Any) -> Any:
    fields: dict[str, Any] = {
        "model": "small",
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    return client.chat.completions.create(**{**fields, **changed})


def ask_anthropic(client: anthropic.Anthropic, **changed: Any) -> Any:
    fields: dict[str, Any] = {
        "model": "small",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    return client.messages.create(**{**fields, **changed})


def openai_tools() -> list[dict[str, Any]]:
    function = {
        "name": TOOL["name"],
        "description": TOOL["description"],
        "parameters": TOOL["schema"],
    }
    return [{"type": "function", "function": function}]


def anthropic_tools() -> list[dict[str, Any]]:
    return [
        {
            "name": TOOL["name"],
            "description": TOOL["description"],
            "input_schema": TOOL["schema"],
        }
    ]


def check_openai_usage(usage: Any) -> None:
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (20, 8, 28)
    assert usage.prompt_tokens_details.cached_tokens == 12
    assert usage.completion_tokens_details.reasoning_tokens == 3
    assert Decimal(str(usage.cost)) == Decimal("0.000153228")


def check_anthropic_usage(usage: Any) -> None:
    assert (usage.input_tokens, usage.output_tokens) == (8, 8)
    assert usage.cache_read_input_tokens == 12
    assert usage.output_tokens_details.thinking_tokens == 3


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_openai_text_whole(connect: Connect, upstream: str) -> None:
    script = script_of(upstream, "text", stream=False)

    answer = ask_openai(connect(script)[0])

    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Hello, wörld.", "stop")
    check_openai_usage(answer.usage)
    assert script.usage == [USAGE]


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_openai_text_streamed(connect: Connect, upstream: str) -> None:
    script = script_of(upstream, "text", stream=True)

    chunks = list(ask_openai(connect(script)[0], stream=True))

    texts = [c.choices[0].delta.content for c in chunks if c.choices]
    assert [text for text in texts if text] == ["Hel", "lo, wörld", "."]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert [bool(c.usage) for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert len({c.id for c in chunks}) == 1
    check_openai_usage(chunks[-1].usage)
    assert script.usage == [USAGE]


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_openai_tools_whole(connect: Connect, upstream: str) -> None:
    answer = ask_openai(
        connect(script_of(upstream, "tools", stream=False))[0], tools=openai_tools()
    )

    calls = answer.choices[0].message.tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
        ("call_a", "weather", '{"city":"Bern"}'),
        ("call_b", "clock", "{}"),
    ]
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_openai_tools_streamed(connect: Connect, upstream: str) -> None:
    client = connect(script_of(upstream, "tools", stream=True))[0]

    with client.chat.completions.stream(
        model="small",
        messages=[{"role": "user", "content": "Weather?"}],
        tools=openai_tools(),  # type: ignore[arg-type]
    ) as stream:
        final = stream.get_final_completion()

    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
        ("call_a", "weather", '{"city":"Bern"}'),
        ("call_b", "clock", "{}"),
    ]
    check_openai_usage(final.usage)


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_anthropic_text_whole(connect: Connect, upstream: str) -> None:
    script = script_of(upstream, "text", stream=False)

    message = ask_anthropic(connect(script)[1])

    assert [block.text for block in message.content] == ["Hello, wörld."]
    assert (message.stop_reason, message.role, message.type) == ("end_turn", "assistant", "message")
    check_anthropic_usage(message.usage)
    assert Decimal(str(message.usage.cost)) == Decimal("0.000153228")
    assert script.usage == [USAGE]


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_anthropic_text_streamed(connect: Connect, upstream: str) -> None:
    client = connect(script_of(upstream, "text", stream=True))[1]

    with client.messages.stream(
        model="small", max_tokens=64, messages=[{"role": "user", "content": "Say hello."}]
    ) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()

    assert texts == ["Hel", "lo, wörld", "."]
    assert final.stop_reason == "end_turn"
    check_anthropic_usage(final.usage)


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_anthropic_tools_whole(connect: Connect, upstream: str) -> None:
    message = ask_anthropic(
        connect(script_of(upstream, "tools", stream=False))[1], tools=anthropic_tools()
    )

    assert [(b.id, b.name, b.input) for b in message.content] == [
        ("call_a", "weather", {"city": "Bern"}),
        ("call_b", "clock", {}),
    ]
    assert message.stop_reason == "tool_use"


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_anthropic_tools_streamed(connect: Connect, upstream: str) -> None:
    client = connect(script_of(upstream, "tools", stream=True))[1]

    with client.messages.stream(
        model="small",
        max_tokens=64,
        messages=[{"role": "user", "content": "Weather?"}],
        tools=anthropic_tools(),  # type: ignore[arg-type]
    ) as stream:
        final = stream.get_final_message()

    blocks = [(b.type, b.id, b.name, b.input) for b in final.content if b.type == "tool_use"]
    assert blocks == [
        ("tool_use", "call_a", "weather", {"city": "Bern"}),
        ("tool_use", "call_b", "clock", {}),
    ]
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_the_cost_in_the_last_event_of_anthropic_is_exact(connect: Connect, upstream: str) -> None:
    events = list(ask_anthropic(connect(script_of(upstream, "text", stream=True))[1], stream=True))

    assert [event.type for event in events[-2:]] == ["message_delta", "message_stop"]
    assert Decimal(str(events[-2].usage.cost)) == Decimal("0.000153228")


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("stream", [True, False])
def test_an_explanation_comes_when_it_is_asked_for(
    connect: Connect, upstream: str, stream: bool
) -> None:
    told = {"policy": "cheapest"}
    clients = connect(script_of(upstream, "text", stream=stream, explanation=told))
    asked = {"stream": stream, "extra_headers": {"X-Tokenhouse-Explain": "1"}}

    of_openai, of_anthropic = ask_openai(clients[0], **asked), ask_anthropic(clients[1], **asked)
    if stream:
        of_openai, of_anthropic = list(of_openai)[-1], list(of_anthropic)[-2]

    assert of_openai.tokenhouse == {"explanation": told}
    assert of_anthropic.tokenhouse == {"explanation": told}


@pytest.mark.parametrize(
    ("refusal", "of_openai", "of_anthropic"),
    [
        (errors.InvalidApiKey("x"), openai.AuthenticationError, anthropic.AuthenticationError),
        (errors.OverBudget("x"), openai.APIStatusError, anthropic.APIStatusError),
        (
            errors.PermissionDenied("x"),
            openai.PermissionDeniedError,
            anthropic.PermissionDeniedError,
        ),
        (errors.ModelNotFound("x"), openai.NotFoundError, anthropic.NotFoundError),
        (errors.InvalidRequest("x"), openai.BadRequestError, anthropic.BadRequestError),
        (errors.RequestTooLarge("x"), openai.APIStatusError, anthropic.RequestTooLargeError),
        (errors.RateLimited("x"), openai.RateLimitError, anthropic.RateLimitError),
        (errors.Unavailable("x"), openai.InternalServerError, anthropic.InternalServerError),
    ],
)
def test_every_refusal_is_each_sdk_s_own_exception(
    connect: Connect,
    refusal: errors.GatewayError,
    of_openai: type[openai.APIStatusError],
    of_anthropic: type[anthropic.APIStatusError],
) -> None:
    clients = connect(Script(offer=offer_view(), refusal=refusal))

    with pytest.raises(of_openai) as told_openai:
        ask_openai(clients[0])
    with pytest.raises(of_anthropic) as told_anthropic:
        ask_anthropic(clients[1])

    assert told_openai.value.status_code == told_anthropic.value.status_code == refusal.status
    assert told_openai.value.code == refusal.code
    assert told_openai.value.type == refusal.type
    assert isinstance(told_anthropic.value.body, dict)
    assert told_anthropic.value.body["error"]["message"] == refusal.message
    assert told_anthropic.value.body["type"] == "error"


def test_a_bad_field_is_named(connect: Connect) -> None:
    clients = connect(Script(offer=offer_view()))

    with pytest.raises(openai.BadRequestError) as told_openai:
        ask_openai(clients[0], max_tokens=-1)
    with pytest.raises(anthropic.BadRequestError, match="temperature") as told_anthropic:
        ask_anthropic(clients[1], extra_body={"temperature": 7})

    assert told_openai.value.param == "max_tokens"
    assert isinstance(told_anthropic.value.body, dict)
    assert told_anthropic.value.body["error"]["param"] == "temperature"


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_a_broken_stream_is_an_exception_never_a_short_answer(
    connect: Connect, upstream: Any
) -> None:
    # given an answer cut in the middle of its text
    whole = ANSWERS[upstream, "text", True]
    script = Script(offer=offer_view(wire=upstream), answer=whole[: whole.index(b'"."')], cut=True)
    clients = connect(script)

    # then both SDKs raise after the text that came
    texts: list[str] = []
    with pytest.raises(openai.APIError, match="broke off"):
        texts.extend(text_of(chunk) for chunk in ask_openai(clients[0], stream=True))
    assert "".join(texts) == "Hello, wörld"
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        list(ask_anthropic(clients[1], stream=True))


def text_of(chunk: Any) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def test_a_conversation_with_tools_crosses_to_anthropic(connect: Connect) -> None:
    script = script_of("anthropic", "text", stream=False)

    ask_openai(
        connect(script)[0],
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_a",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "Rain."},
            {"role": "user", "content": "And now?"},
        ],
        tools=openai_tools(),
        tool_choice="required",
        stop="END",
        temperature=1.5,
    )

    assert script.calls[0].url == "https://api.acme.example/v1/messages"
    assert msgspec.json.decode(script.calls[0].body) == {
        "model": "acme-small-v1",
        "max_tokens": 64,
        "system": "Be brief.",
        "temperature": 1.0,
        "stop_sequences": ["END"],
        "tools": anthropic_tools_sent(),
        "tool_choice": {"type": "any"},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "tool_use",
                        "id": "call_a",
                        "name": "weather",
                        "input": {"city": "Bern"},
                    }
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_a", "content": "Rain."},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
    }


def anthropic_tools_sent() -> list[dict[str, Any]]:
    return [
        {
            "name": "weather",
            "description": "The weather in a city.",
            "input_schema": TOOL["schema"],
        }
    ]


def test_a_conversation_with_tools_crosses_to_openai(connect: Connect) -> None:
    script = script_of("openai", "text", stream=False)

    ask_anthropic(
        connect(script)[1],
        system=[{"type": "text", "text": "Be brief."}],
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {
                        "type": "tool_use",
                        "id": "call_a",
                        "name": "weather",
                        "input": {"city": "Bern"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_a", "content": "Rain."},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        tools=anthropic_tools(),
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
    )

    assert script.calls[0].url == "https://api.acme.example/v1/chat/completions"
    assert msgspec.json.decode(script.calls[0].body) == {
        "model": "acme-small-v1",
        "max_tokens": 64,
        "temperature": 0.5,
        "stop": ["END"],
        "tools": openai_tools(),
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {
                        "id": "call_a",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "Rain."},
            {"role": "user", "content": "And now?"},
        ],
    }
