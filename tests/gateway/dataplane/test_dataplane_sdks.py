"""The official SDKs against the running data plane: nothing but the base URL changed."""

import anthropic
import openai
import pytest

from tests.fakes.upstream import INPUT_TOKENS, TOKENS, FakeUpstream
from tests.gateway.world import Caller, World, add_offer, add_provider

TEXT = "".join(TOKENS)
MESSAGES = [{"role": "user", "content": "What does the fox do?"}]


def catalogue(upstream: FakeUpstream) -> None:
    add_offer(provider=add_provider("pool", upstream.url), model="fox", upstream_model="good")


def openai_of(world: World, caller: Caller) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{world.plane.url}/v1", api_key=caller.plain, max_retries=0)


def anthropic_of(world: World, caller: Caller) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=world.plane.url, api_key=caller.plain, max_retries=0)


def test_openai_answers_whole_and_streamed(the_world: World) -> None:
    # given
    with openai_of(the_world, the_world.caller()) as client:
        # when
        whole = client.chat.completions.create(model="fox", messages=MESSAGES, max_tokens=50)
        stream = client.chat.completions.create(
            model="fox", messages=MESSAGES, max_tokens=50, stream=True
        )
        chunks = list(stream)
    # then
    assert whole.choices[0].message.content == TEXT
    shown = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert shown == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == INPUT_TOKENS


def test_anthropic_answers_whole_and_streamed(the_world: World) -> None:
    # given
    with anthropic_of(the_world, the_world.caller()) as client:
        # when
        whole = client.messages.create(model="fox", messages=MESSAGES, max_tokens=50)
        with client.messages.stream(model="fox", messages=MESSAGES, max_tokens=50) as stream:
            shown = "".join(stream.text_stream)
            final = stream.get_final_message()
    # then
    assert whole.content[0].text == TEXT
    assert shown == TEXT
    assert final.usage.output_tokens == len(TOKENS)


@pytest.mark.parametrize(
    ("credit_nano", "model", "error"),
    [
        (10**9, "no-such-fox", (openai.NotFoundError, anthropic.NotFoundError)),
        (0, "fox", (openai.APIStatusError, anthropic.APIStatusError)),
    ],
)
def test_refusals_are_the_sdks_own_exceptions(
    the_world: World, credit_nano: int, model: str, error: tuple[type[Exception], type[Exception]]
) -> None:
    # given
    alice = the_world.caller(credit_nano=credit_nano)
    # when / then
    with openai_of(the_world, alice) as client, pytest.raises(error[0]):
        client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=5)
    with anthropic_of(the_world, alice) as client, pytest.raises(error[1]):
        client.messages.create(model=model, messages=MESSAGES, max_tokens=5)


def test_a_wrong_key_is_an_authentication_error(the_world: World) -> None:
    # given
    alice = the_world.caller()
    alice.plain = "tk-000000000000-wrong"
    # when / then
    with openai_of(the_world, alice) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="fox", messages=MESSAGES, max_tokens=5)
    with anthropic_of(the_world, alice) as client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(model="fox", messages=MESSAGES, max_tokens=5)
