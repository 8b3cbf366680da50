"""How many tokens a request can have at most: what every hold rests on."""

import base64
import struct
from typing import Any

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


def test_a_picture_counts_by_its_size_and_not_by_the_bytes_that_carry_it() -> None:
    # given two pictures of 640 by 480 pixels, each in 40,000 letters of base64
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 640, 480)
    url = "data:image/png;base64," + base64.b64encode(head + bytes(30_000 - len(head))).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    text = {"type": "text", "text": "What differs?"}
    request = openai_request(messages=[{"role": "user", "content": [text, part, part]}])
    claude = offer_view(model="claude-fox", context_length=1_000_000)

    # then what is left of the bytes is the text's, and each picture is 23 by 18 patches
    assert request.text_bytes == 156
    assert bounds.input_bound(request, claude) == 64 + 156 + 16 + 2 * 23 * 18
    assert bounds.input_expected(request) == 156 // 4 + 2 * 409
    assert bounds.input_least(request) == 26


def test_a_picture_of_anthropic_s_clients_counts_alike_also_in_a_tool_result() -> None:
    head = b"GIF89a" + struct.pack("<HH", 640, 480)
    data = base64.b64encode(head + bytes(30_000 - len(head))).decode()
    source = {"type": "base64", "media_type": "image/gif", "data": data}
    image = {"type": "image", "source": source}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [image]}
    request = anthropic_request(messages=[{"role": "user", "content": [image, result]}])
    claude = offer_view(model="claude-fox", context_length=1_000_000)

    assert request.text_bytes < 400
    assert bounds.input_bound(request, claude) == 64 + request.text_bytes + 16 + 2 * 23 * 18


def test_a_sound_counts_by_its_bytes() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 4_000, "format": "mp3"}}
    request = openai_request(messages=[{"role": "user", "content": [sound]}])

    assert request.text_bytes < 200
    assert request.sound_tokens == 3_000 * 32 // 500 + 32
    assert bounds.input_bound(request, offer_view()) == 80 + request.text_bytes + 224


def test_the_callers_limit_is_lowered_to_the_models_and_the_keys() -> None:
    request = openai_request(max_tokens=5_000)

    assert bounds.max_output_tokens(request, offer_view(), cap=0) == 4_096
    assert bounds.max_output_tokens(request, offer_view(), cap=1_000) == 1_000
    assert bounds.max_output_tokens(openai_request(max_tokens=7), offer_view(), cap=1_000) == 7


@pytest.mark.parametrize(
    ("asked", "cap", "offer", "limit"),
    [
        (5_000, 0, {}, (4_096, "model")),
        (5_000, 1_000, {}, (1_000, "tenant")),
        (7, 1_000, {}, (7, "")),
        (9_000, 0, {"max_output_tokens": 0}, (8_192, "context")),
        (9_000, 0, {"max_output_tokens": 0, "context_length": 0}, (9_000, "")),
        (None, 0, {}, (4_096, "")),
        (None, 1_000, {}, (1_000, "tenant")),
        (None, 0, {"max_output_tokens": 8_192}, (8_192 - 120, "")),
        # of a vendor whose limit is not published so much is asked for, and it is said
        (None, 0, {"max_output_tokens": 0, "context_length": 128_000}, (4_096, "unknown")),
        (None, 0, {"max_output_tokens": 0, "in_house": True}, (8_192 - 120, "")),
        (None, 0, {"max_output_tokens": 0, "context_length": 0}, (4_096, "unknown")),
    ],
)
def test_what_lowers_a_limit_is_named(
    asked: int | None, cap: int, offer: dict[str, Any], limit: tuple[int, str]
) -> None:
    request = openai_request(max_tokens=asked)

    assert bounds.output_limit(request, offer_view(**offer), cap=cap) == limit


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
    assert bounds.max_output_tokens(openai_request(), offer, cap=0) == 4_096
