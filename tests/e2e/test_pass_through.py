"""Tools, images and fields that nobody here knows reach the seller, and its tool calls come back.

With the official SDKs, both dialects, streamed and not; the seller speaks OpenAI's dialect.
"""

import base64
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.house import FOX, Customer, House
from tests.fakes.pool import CITY

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OPENAI_TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city", "parameters": WEATHER},
}
ANTHROPIC_TOOL: Any = {"name": "weather", "description": "Of a city", "input_schema": WEATHER}
ASKED: Any = [{"role": "user", "content": "Weather in Oslo?"}]
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n-one-pixel").decode()
ROOM = 10**13


@pytest.fixture(scope="module")
def customer(house: House) -> Customer:
    return house.customer(credit_pico=ROOM)


@pytest.fixture
def openai_client(house: House, customer: Customer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{house.stack.api}/v1", api_key=customer.key, max_retries=0)


@pytest.fixture
def anthropic_client(house: House, customer: Customer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=house.stack.api, api_key=customer.key, max_retries=0)


def _received(house: House, model: str) -> dict[str, Any]:
    return house.upstream.calls(model)[-1].body


def test_a_tool_and_its_call_pass_through_openai_s_sdk(
    house: House, openai_client: openai.OpenAI
) -> None:
    answer = openai_client.chat.completions.create(
        model="fox-tools", messages=ASKED, tools=[OPENAI_TOOL], tool_choice="auto", max_tokens=50
    )

    assert _received(house, "fox-tools")["tools"] == [OPENAI_TOOL]
    assert _received(house, "fox-tools")["tool_choice"] == "auto"
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.id, call.function.name) == ("call_1", "weather")
    assert call.function.arguments == '{"city": "Oslo"}'


def test_a_streamed_tool_call_passes_through_openai_s_sdk(openai_client: openai.OpenAI) -> None:
    with openai_client.chat.completions.stream(
        model="fox-tools", messages=ASKED, tools=[OPENAI_TOOL], max_tokens=50
    ) as stream:
        final = stream.get_final_completion()

    [call] = final.choices[0].message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Oslo"}')
    assert final.usage is not None
    assert final.usage.cost > 0  # type: ignore[attr-defined]


def test_a_tool_and_its_call_pass_through_anthropic_s_sdk(
    house: House, anthropic_client: anthropic.Anthropic
) -> None:
    message = anthropic_client.messages.create(
        model="fox-tools", messages=ASKED, tools=[ANTHROPIC_TOOL], max_tokens=50
    )

    assert _received(house, "fox-tools")["tools"] == [OPENAI_TOOL]
    [block] = message.content
    assert block.type == "tool_use"
    assert (block.id, block.name, block.input) == ("call_1", "weather", CITY)
    assert message.stop_reason == "tool_use"


def test_a_streamed_tool_call_passes_through_anthropic_s_sdk(
    anthropic_client: anthropic.Anthropic,
) -> None:
    with anthropic_client.messages.stream(
        model="fox-tools", messages=ASKED, tools=[ANTHROPIC_TOOL], max_tokens=50
    ) as stream:
        final = stream.get_final_message()

    [block] = final.content
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("weather", CITY)
    assert final.stop_reason == "tool_use"
    assert final.usage.output_tokens > 0


def test_a_tool_s_result_goes_back_to_the_seller_in_both_dialects(
    house: House, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    # given the same conversation in each dialect
    called = {"id": "call_1", "type": "function"}
    called |= {"function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}  # type: ignore[dict-item]
    in_openai: Any = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ]
    used = {"type": "tool_use", "id": "call_1", "name": "weather", "input": CITY}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "Rain."}
    in_anthropic: Any = [
        *ASKED,
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result]},
    ]

    # when
    openai_client.chat.completions.create(
        model=FOX, messages=in_openai, tools=[OPENAI_TOOL], max_tokens=50
    )
    first = _received(house, FOX)["messages"]
    anthropic_client.messages.create(
        model=FOX, messages=in_anthropic, tools=[ANTHROPIC_TOOL], max_tokens=50
    )
    second = _received(house, FOX)["messages"]

    # then
    assert first == in_openai
    assert [message["role"] for message in second] == ["user", "assistant", "tool"]
    [call] = second[1]["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("call_1", "weather")
    assert second[2] == {"role": "tool", "tool_call_id": "call_1", "content": "Rain."}


def test_an_image_reaches_the_seller_in_both_dialects(
    house: House, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    # given
    url = f"data:image/png;base64,{PIXEL}"
    text = {"type": "text", "text": "What is this?"}
    in_openai: Any = [text, {"type": "image_url", "image_url": {"url": url}}]
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    in_anthropic: Any = [text, {"type": "image", "source": source}]

    # when
    openai_client.chat.completions.create(
        model=FOX, messages=[{"role": "user", "content": in_openai}], max_tokens=50
    )
    first = _received(house, FOX)["messages"][0]["content"]
    anthropic_client.messages.create(
        model=FOX, messages=[{"role": "user", "content": in_anthropic}], max_tokens=50
    )
    second = _received(house, FOX)["messages"][0]["content"]

    # then
    assert first == in_openai
    assert second[0] == text
    assert second[1]["image_url"]["url"] == url


def test_fields_that_nobody_here_knows_stay_here_and_are_told(
    house: House, openai_client: openai.OpenAI
) -> None:
    switches = {"chat_template_kwargs": {"thinking": True}}
    made_up = {"made_up": {"deep": [1, 2.5, None, "x"]}, "rid": "another-call"}

    answer = openai_client.chat.completions.with_raw_response.create(
        model=FOX, messages=ASKED, max_tokens=50, extra_body={**made_up, **switches}
    )

    received = _received(house, FOX)
    assert received["chat_template_kwargs"] == {"thinking": True}
    assert not made_up.keys() & received.keys()
    assert answer.headers["x-tokenhouse-left-out"] == "made_up, rid"


def test_a_hold_for_an_image_covers_the_whole_context(house: House) -> None:
    """Nobody can say how many tokens an image is; the model's context bounds them."""
    # given credit for the text alone
    poor = house.customer(credit_pico=10**9)
    url = "data:image/x-unknown;base64,aGk="
    image: Any = {"type": "image_url", "image_url": {"url": url}}

    # when / then
    client = openai.OpenAI(base_url=f"{house.stack.api}/v1", api_key=poor.key, max_retries=0)
    client.chat.completions.create(model=FOX, messages=ASKED, max_tokens=8)
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model=FOX, messages=[{"role": "user", "content": [image]}], max_tokens=8
        )
    assert refused.value.status_code == 402
