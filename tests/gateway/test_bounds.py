"""How many tokens a request can have at most: what every hold rests on."""

import pytest

from gateway.routing import bounds
from tests.factories import anthropic_request, offer_view, openai_request

MESSAGES = '[{"role":"user","content":"Say hello."}]'


def test_text_is_bounded_by_its_bytes_and_a_stated_overhead() -> None:
    request = openai_request()

    assert request.text_bytes == len(MESSAGES) == 40
    assert bounds.text_bound(request) == 64 + 40 + 16
    assert bounds.input_bound(request, offer_view()) == 120


def test_multi_byte_text_counts_bytes_not_letters() -> None:
    ascii_only = openai_request(messages=[{"role": "user", "content": "aaaa"}])
    japanese = openai_request(messages=[{"role": "user", "content": "日本語だ"}])

    assert japanese.text_bytes - ascii_only.text_bytes == 4 * 2


def test_tools_count_their_json_and_an_overhead_each() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}] * 2

    request = openai_request(tools=tools)

    tools_bytes = 2 * len('{"type":"function","function":{"name":"f","parameters":{}}}') + 3
    assert request.text_bytes == 40 + tools_bytes
    assert bounds.text_bound(request) == 64 + 40 + tools_bytes + 16 + 600 + 2 * 64


def test_fields_that_we_do_not_know_count_as_prompt() -> None:
    request = openai_request(documents=["x" * 98])

    assert request.text_bytes == 40 + 102


def test_the_system_prompt_of_anthropic_counts_as_a_message() -> None:
    request = anthropic_request(system="Be brief.")

    assert request.text_bytes == 40 + len('"Be brief."')
    assert request.messages == 2


def test_the_input_never_exceeds_the_context() -> None:
    request = openai_request(messages=[{"role": "user", "content": "x" * 20_000}])

    assert bounds.input_bound(request, offer_view(context_length=8_192)) == 8_192


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ],
)
def test_what_is_not_text_is_bounded_by_the_context_alone(part: dict[str, object]) -> None:
    request = openai_request(messages=[{"role": "user", "content": [part]}])

    assert not request.all_text
    assert bounds.input_bound(request, offer_view(context_length=8_192)) == 8_192


def test_the_callers_limit_is_lowered_to_the_models_and_the_keys() -> None:
    request = openai_request(max_tokens=5_000)

    assert bounds.max_output_tokens(request, offer_view(), cap=0) == 4_096
    assert bounds.max_output_tokens(request, offer_view(), cap=1_000) == 1_000
    assert bounds.max_output_tokens(openai_request(max_tokens=7), offer_view(), cap=1_000) == 7


def test_the_smaller_of_both_limits_counts() -> None:
    request = openai_request(max_tokens=50, max_completion_tokens=40)

    assert request.max_output_tokens == 40


def test_without_a_limit_the_cap_is_used_if_it_leaves_room_for_the_prompt() -> None:
    offer = offer_view(context_length=2_048, max_output_tokens=2_048)

    assert bounds.max_output_tokens(openai_request(), offer, cap=500) == 500
    assert bounds.max_output_tokens(openai_request(), offer, cap=4_096) == 2_048 - 120


def test_a_long_prompt_still_leaves_some_output() -> None:
    # given 1,950 bytes of prompt, which are likely to be some 490 tokens of 2,048
    request = openai_request(messages=[{"role": "user", "content": "x" * 1_920}])
    offer = offer_view(context_length=2_048, max_output_tokens=2_048)
    assert request.text_bytes == 1_950

    # then half of what is likely to be left is given
    assert bounds.max_output_tokens(request, offer, cap=4_096) == (2_048 - 487 - 16) // 2


def test_every_choice_is_bounded() -> None:
    assert bounds.output_bound(openai_request(max_tokens=10, n=3), offer_view(), cap=0) == 30


def test_an_unknown_context_bounds_text_by_its_bytes() -> None:
    offer = offer_view(context_length=0, max_output_tokens=0)

    assert bounds.input_bound(openai_request(), offer) == 120
    assert bounds.max_output_tokens(openai_request(), offer, cap=0) == 256
