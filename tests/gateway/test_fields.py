"""Which fields of a caller travel to whom, by their names and by every spelling of them."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway.dataplane.surfaces import anthropic_messages, openai_chat
from gateway.errors import InvalidRequest
from providers.chat import FETCHES, ChatRequest, OfferView
from providers.wires import body_fields, registry
from providers.wires.body_fields import Rule, Seller
from tests.factories import anthropic_body, offer_view, openai_body
from tests.gateway.routing.test_routing import rank, rejected, seller

OFFERS: dict[Seller, OfferView] = {
    Seller.OPENAI: offer_view(provider="openai"),
    Seller.COMPATIBLE: offer_view(),
    Seller.ANTHROPIC: offer_view(wire="anthropic"),
    Seller.POOL: offer_view(in_house=True, pool=True),
    Seller.IN_HOUSE: offer_view(in_house=True, salted=True),
}
# What engines take beyond OpenAI's fields, and callers must not say.
PLUMBING = (
    "rid request_id bootstrap_host bootstrap_port bootstrap_room kv_transfer_params id_slot "
    "extra_key cache_salt priority n_predict cache_prompt data_parallel_rank routing_key "
    "vllm_xargs return_token_ids slot_id made_up"
).split()
REFUSED = (
    "best_of prompt_logprobs lora_path custom_logit_processor chat_template echo input_ids "
    "prompt_embeds use_beam_search adapter_id truncate_prompt_tokens return_hidden_states"
).split()


def parsed(**more: Any) -> ChatRequest:
    return openai_chat.parse(openai_body(**more), {})


def sent(request: ChatRequest, offer: OfferView) -> dict[str, Any]:
    call = registry.wire_for(offer.wire).build(request, offer, max_output_tokens=64)
    body: dict[str, Any] = msgspec.json.decode(call.body)
    return body


@pytest.mark.parametrize("kind", [kind for kind in Seller if kind is not Seller.ANTHROPIC])
@pytest.mark.parametrize("name", PLUMBING)
def test_what_a_caller_must_not_say_stays_here_and_is_told(name: str, kind: Seller) -> None:
    request = parsed(**{name: 7})

    assert body_fields.rule(name, kind) is Rule.DROP
    assert name not in sent(request, OFFERS[kind])
    assert registry.left_out(request, OFFERS[kind]) == [name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_a_machine_or_a_cost_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**{name: "x"})

    assert (refused.value.param, refused.value.code) == (name, "field_not_allowed")
    assert {body_fields.rule(name, kind) for kind in Seller} == {Rule.REFUSE}
    assert parsed(**{name: None}).model == "small"


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("temperature", set(Seller)),
        ("seed", set(Seller) - {Seller.ANTHROPIC}),
        ("prediction", {Seller.OPENAI, Seller.COMPATIBLE}),
        ("top_k", set(Seller) - {Seller.OPENAI}),
        ("guided_json", {Seller.COMPATIBLE, Seller.POOL}),
        ("reasoning", {Seller.COMPATIBLE}),
        ("continue_final_message", {Seller.COMPATIBLE, Seller.POOL, Seller.IN_HOUSE}),
        ("context_management", {Seller.ANTHROPIC}),
    ],
)
def test_the_table_says_who_is_sent_what(name: str, passes: set[Seller]) -> None:
    assert {kind for kind in Seller if body_fields.rule(name, kind) is Rule.PASS} == passes


def test_every_field_that_passes_travels_under_its_name_alone() -> None:
    for kind, offer in OFFERS.items():
        if kind is Seller.ANTHROPIC:
            continue
        more = {"top_k": 5, "seed": 1, "prediction": {"type": "content", "content": "x"}}
        request = parsed(**more, guided_json="{}")
        body = sent(request, offer)
        for name in (*more, "guided_json"):
            assert (name in body) is (body_fields.rule(name, kind) is Rule.PASS)
            assert (name in registry.left_out(request, offer)) is (name not in body)


def spellings(name: str) -> list[str]:
    """Other ways to write a name that some reader takes for it."""
    swapped = name.replace("s", "\u017f").replace("k", "\u212a")
    wide = chr(ord(name[0]) - 0x20 + 0xFF00) + name[1:]
    return [each for each in {name.upper(), name.title(), swapped, wide} if each != name]


@pytest.mark.parametrize("name", sorted(body_fields.KNOWN | body_fields.REFUSED))
def test_another_spelling_of_a_name_is_refused(name: str) -> None:
    for spelling in spellings(name):
        for parse, body in (
            (openai_chat.parse, openai_body(**{spelling: 1})),
            (anthropic_messages.parse, anthropic_body(**{spelling: 1})),
        ):
            with pytest.raises(InvalidRequest) as refused:
                parse(body, {})
            assert (refused.value.code, refused.value.param) == ("unknown_field", spelling)
            assert f"`{name}` is" in refused.value.message


def test_of_a_field_that_is_there_twice_the_one_that_counts_here_counts_there() -> None:
    # given
    body = (
        b'{"model":"other","max_tokens":9,"n":4,"temperature":0,"messages":[{"role":"user",'
        b'"content":"x"}],"model":"small","max_tokens":5,"n":1,"temperature":1}'
    )

    # when
    request = openai_chat.parse(body, {})
    call = registry.wire_for("openai").build(request, OFFERS[Seller.POOL], max_output_tokens=5)

    # then
    assert (request.model, request.max_output_tokens, request.n) == ("small", 5, 1)
    for name in (b'"model"', b'"max_tokens"', b'"n"', b'"temperature"'):
        assert call.body.count(name) == 1
    assert msgspec.json.decode(call.body)["temperature"] == 1


def test_of_stream_options_only_what_a_caller_may_choose_travels() -> None:
    options = {"Include_Usage": False, "include_obfuscation": False, "include_usage": False}
    request = parsed(stream=True, stream_options=options)

    assert sent(request, OFFERS[Seller.COMPATIBLE])["stream_options"] == {
        "include_usage": True,
        "include_obfuscation": False,
    }


@pytest.mark.parametrize(
    ("switches", "param"),
    [
        ({"chat_template": "x"}, "chat_template_kwargs.chat_template"),
        ({"Enable_Thinking": True}, "chat_template_kwargs.Enable_Thinking"),
        ({"enable_thinking": ["x"]}, None),
        ({"reasoning_effort": "x" * 65}, None),
    ],
)
def test_a_template_takes_its_switches_and_nothing_else(
    switches: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(chat_template_kwargs=switches)
    assert param in (None, refused.value.param)
    assert parsed(chat_template_kwargs={"enable_thinking": False, "thinking": None}).model


Place = Callable[[str], ChatRequest]
OF_OPENAI: dict[str, Callable[[str], dict[str, Any]]] = {
    "image": lambda url: {"type": "image_url", "image_url": {"url": url}},
    "bare image": lambda url: {"type": "image_url", "image_url": url},
    "video": lambda url: {"type": "video_url", "video_url": {"url": url}},
    "audio": lambda url: {"type": "audio_url", "audio_url": {"url": url}},
    "file": lambda url: {"type": "file", "file": {"file_url": url}},
    "sound data": lambda url: {"type": "input_audio", "input_audio": {"data": url}},
    "file data": lambda url: {"type": "file", "file": {"file_data": url}},
}
OF_ANTHROPIC: dict[str, Callable[[str], dict[str, Any]]] = {
    "picture": lambda url: {"type": "image", "source": {"type": "url", "url": url}},
    "document": lambda url: {"type": "document", "source": {"type": "url", "url": url}},
    "picture data": lambda url: {"type": "image", "source": {"type": "base64", "data": url}},
    "result": lambda url: {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": [{"type": "image", "source": {"type": "url", "url": url}}],
    },
    "within a document": lambda url: {
        "type": "document",
        "source": {
            "type": "content",
            "content": [{"type": "image", "source": {"type": "url", "url": url}}],
        },
    },
}


def in_place(place: str, url: str) -> ChatRequest:
    part = {**OF_OPENAI, **OF_ANTHROPIC}[place](url)
    messages = [{"role": "user", "content": [part]}]
    if place in OF_OPENAI:
        return openai_chat.parse(openai_body(messages=messages), {})
    return anthropic_messages.parse(anthropic_body(messages=messages), {})


@pytest.mark.parametrize("place", [*OF_OPENAI, *OF_ANTHROPIC])
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "http://0xa9fea9fe/",
        "http://10.0.0.7/a.png",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/a.png",
    ],
)
def test_no_server_is_sent_to_a_private_address(url: str, place: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        in_place(place, url)
    assert refused.value.code == "address_refused"


@pytest.mark.parametrize("place", [*OF_OPENAI, *OF_ANTHROPIC])
def test_machines_of_the_house_fetch_nothing_unless_they_may(place: str) -> None:
    request = in_place(place, "https://example.com/a.png")
    house = seller(1, "lab", in_house=True, pool=True)

    assert "addresses" in request.needs
    if place in OF_OPENAI:
        assert rejected(rank(house, request=request))["lab"][0] == "capability"
        able = seller(1, "lab", in_house=True, pool=True, capabilities=frozenset({FETCHES}))
        assert rejected(rank(able, request=request)).get("lab", ("",))[0] != "capability"


def test_what_is_in_the_body_itself_is_fetched_by_nobody() -> None:
    for url in ("data:image/png;base64,aGk=", "DATA:image/png;base64,aGk="):
        assert "addresses" not in in_place("image", url).needs


@pytest.mark.parametrize(
    "content",
    [
        '[{"type":"image_url","image_url":{"url":"http://10.0.0.1/","url":"data:,x"}}]',
        '[{"type":"image_url","image_url":{"url":"data:,x","URL":"http://10.0.0.1/"}}]',
        '[{"type":"image_url","image_url":{"url":"data:,x"},"Image_Url":{"url":"file:///x"}}]',
        '[{"type":"text","text":"x","IMAGE_URL":{"url":"file:///x"}}]',
        '"x","Content":[{"type":"image_url","image_url":{"url":"file:///x"}}]',
        '"x","\\u0043ontent":[{"type":"image_url","image_\\u0075rl":{"\\u0075rl":"file:///x"}}]',
        '"x","\\u0043ontent":[{"type":"image_url","image_url":"file:///x"}],"content":"x"',
    ],
)
def test_a_name_that_could_be_read_as_another_is_refused(content: str) -> None:
    body = f'{{"model":"small","messages":[{{"role":"user","content":{content}}}]}}'.encode()

    with pytest.raises(InvalidRequest) as refused:
        openai_chat.parse(body, {})
    assert refused.value.code in ("ambiguous_field", "address_refused")


def test_what_a_tool_is_called_with_is_anybodys_choice_of_names() -> None:
    used = {"type": "tool_use", "id": "a", "name": "get", "input": {"URL": "file:///x", "url": 1}}

    request = anthropic_messages.parse(
        anthropic_body(messages=[{"role": "assistant", "content": [used]}]), {}
    )

    assert "addresses" not in request.needs


def test_a_cached_picture_and_a_part_that_nobody_knows_do_not_reach_our_machines() -> None:
    picture = {"type": "image_url", "image_url": "data:image/png;base64,aGk=", "uuid": "theirs"}
    with pytest.raises(InvalidRequest) as refused:
        parsed(messages=[{"role": "user", "content": [picture]}])
    assert refused.value.param == "messages[0].content[0].uuid"

    odd = {"type": "image_embeds", "image_embeds": "cGlja2xl"}
    request = parsed(messages=[{"role": "user", "content": [odd]}])
    house = seller(1, "lab", in_house=True, pool=True)
    assert rejected(rank(house, request=request))["lab"][0] == "capability"
