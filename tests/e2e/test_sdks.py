"""The official SDKs, with nothing but the base URL changed."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.e2e.stack import MODEL, Stack

HELLO = "Say hello."


@pytest.fixture
def openai_client(stack: Stack) -> Iterator[openai.OpenAI]:
    key = stack.api_keys[0]
    with openai.OpenAI(base_url=f"{stack.api}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(stack: Stack) -> Iterator[anthropic.Anthropic]:
    key = stack.api_keys[0]
    with anthropic.Anthropic(base_url=stack.api, api_key=key, max_retries=0) as client:
        yield client


def test_openai_whole_answer_has_text_usage_and_cost(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": HELLO}], max_tokens=8
    )

    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.cost > 0  # type: ignore[attr-defined]


def test_openai_stream_ends_with_usage_and_cost(openai_client: openai.OpenAI) -> None:
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": HELLO}], max_tokens=8, stream=True
        )
    )

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.cost > 0  # type: ignore[attr-defined]


def test_anthropic_whole_answer_has_text_and_usage(anthropic_client: anthropic.Anthropic) -> None:
    message = anthropic_client.messages.create(
        model=MODEL, max_tokens=8, messages=[{"role": "user", "content": HELLO}]
    )

    assert message.content[0].type == "text"
    assert message.content[0].text
    assert 0 < message.usage.output_tokens <= 8
    assert message.stop_reason in {"end_turn", "max_tokens"}


def test_anthropic_stream_yields_text_and_final_usage(
    anthropic_client: anthropic.Anthropic,
) -> None:
    with anthropic_client.messages.stream(
        model=MODEL, max_tokens=8, messages=[{"role": "user", "content": HELLO}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert text
    assert final.usage.output_tokens > 0


def test_a_wrong_key_is_each_sdk_s_own_authentication_error(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    wrong = "tk-000000000000-" + "x" * 43
    messages = [{"role": "user", "content": HELLO}]

    with pytest.raises(openai.AuthenticationError):
        openai_client.with_options(api_key=wrong).chat.completions.create(
            model=MODEL,
            messages=messages,  # type: ignore[arg-type]
        )
    with pytest.raises(anthropic.AuthenticationError):
        anthropic_client.with_options(api_key=wrong).messages.create(
            model=MODEL,
            max_tokens=8,
            messages=messages,  # type: ignore[arg-type]
        )


def test_an_unknown_model_is_not_found_and_the_nearest_is_named(
    openai_client: openai.OpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL):
        openai_client.chat.completions.create(
            model="smollm2-135m-instrukt", messages=[{"role": "user", "content": HELLO}]
        )


def test_absurd_parameters_are_bad_requests_that_name_the_field(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": HELLO}], max_tokens=-1
        )
    assert refused.value.param == "max_tokens"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        anthropic_client.messages.create(
            model=MODEL, max_tokens=-1, messages=[{"role": "user", "content": HELLO}]
        )
