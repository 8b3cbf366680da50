"""What goes upstream: spliced where the dialect is the same, translated where it is not."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.surfaces import anthropic_messages
from gateway.errors import InvalidRequest
from providers.chat import ChatRequest, OfferView
from providers.errors import BadRequest
from providers.wires.anthropic import wire as anthropic_wire
from providers.wires.openai import wire as openai_wire
from providers.wires.registry import wire_for
from tests.factories import (
    anthropic_body,
    anthropic_request,
    offer_view,
    openai_request,
)

OPENAI = offer_view()
ANTHROPIC = offer_view(wire="anthropic", headers={"x-api-key": "upstream-secret"})
USER = {"role": "user", "content": "Say hello."}


def sent(request: ChatRequest, offer: OfferView, *, limit: int = 64) -> dict[str, Any]:
    call = wire_for(offer.wire).build(request, offer, max_output_tokens=limit)
    body: dict[str, Any] = msgspec.json.decode(call.body)
    return body


def test_the_same_dialect_keeps_every_byte_of_the_prompt() -> None:
    # given odd spacing, escapes and a knob of open models
    prompt = b'[ {"role" : "user","content":"\\u00e9 \\/ \xc3\xa9"} ]'
    body = b'{"messages":' + prompt + b',"model":"small","logit_bias":{"1" : 1.50}}'
    request = openai_request()
    request = type(request)(**{**_fields(request), **_parsed(body)})

    # when
    call = wire_for("openai").build(request, OPENAI, max_output_tokens=64)

    # then
    assert call.body == (
        b'{"messages":' + prompt + b',"model":"acme-small-v1","logit_bias":{"1" : 1.50}'
        b',"max_tokens":64}'
    )
    assert call.url == "https://api.acme.example/v1/chat/completions"
    assert call.headers == {
        "content-type": "application/json",
        "authorization": "Bearer upstream-secret",
    }


def _fields(request: ChatRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ChatRequest.__slots__}


def _parsed(body: bytes) -> dict[str, Any]:
    return {"body": body, "fields": msgspec.json.decode(body, type=dict[str, msgspec.Raw])}


def test_what_steers_us_is_not_sent_on() -> None:
    request = openai_request(
        provider={"order": ["acme"]},
        models=["small"],
        session_id="s",
        usage={"include": True},
        transforms=["middle-out"],
        route="fallback",
        user="u1",
    )

    assert sent(request, OPENAI) == {
        "model": "acme-small-v1",
        "messages": [USER],
        "user": "u1",
        "max_tokens": 64,
    }


def test_streams_always_ask_for_usage_and_keep_other_options() -> None:
    plain = sent(openai_request(stream=True), OPENAI)
    chosen = sent(
        openai_request(
            stream=True, stream_options={"include_usage": False, "include_obfuscation": False}
        ),
        OPENAI,
    )

    assert plain["stream_options"] == {"include_usage": True}
    assert chosen["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in sent(openai_request(), OPENAI)


@pytest.mark.parametrize(
    ("asked", "provider", "expected"),
    [
        ({}, "acme", {"max_tokens": 64}),
        ({}, "openai", {"max_completion_tokens": 64}),
        ({"max_tokens": 9_999}, "openai", {"max_tokens": 64}),
        ({"max_completion_tokens": 100}, "acme", {"max_completion_tokens": 64}),
        (
            {"max_tokens": 100, "max_completion_tokens": 90},
            "acme",
            {"max_tokens": 64, "max_completion_tokens": 64},
        ),
        ({"max_tokens": None}, "openai", {"max_completion_tokens": 64}),
    ],
)
def test_the_bound_of_the_hold_is_always_sent(
    asked: dict[str, Any], provider: str, expected: dict[str, Any]
) -> None:
    body = sent(openai_request(**asked), offer_view(provider=provider))

    assert {name: value for name, value in body.items() if name.startswith("max_")} == expected


@pytest.mark.parametrize(
    ("tier", "provider", "expected"),
    [
        ("auto", "openai", "default"),
        ("default", "acme", None),
        ("flex", "openai", "flex"),
        ("priority", "acme", "priority"),
    ],
)
def test_the_vendor_may_not_choose_another_tier(
    tier: str, provider: str, expected: str | None
) -> None:
    body = sent(openai_request(service_tier=tier), offer_view(provider=provider))

    assert body.get("service_tier") == expected


@pytest.mark.parametrize("tier", ["flex", "priority", "batch"])
def test_a_priced_tier_reaches_a_worker_of_the_house_in_any_dialect(tier: str) -> None:
    house = offer_view(in_house=True, salted=True, provider="house")
    for request in (openai_request(service_tier=tier), anthropic_request(service_tier=tier)):
        assert sent(request, house)["service_tier"] == tier
    assert "service_tier" not in sent(openai_request(service_tier="auto"), house)


def test_a_priced_tier_is_asked_for_across_dialects() -> None:
    request = anthropic_request(service_tier="flex")

    assert sent(request, OPENAI)["service_tier"] == "flex"


def test_only_our_own_workers_get_salt_and_priority() -> None:
    """A server that others wrote is salted where it takes that, and refuses priorities."""
    request = openai_request()
    request.cache_salt, request.priority = "salt-of-tenant", 5

    own = sent(request, offer_view(salted=True))

    assert (own["cache_salt"], own["priority"]) == ("salt-of-tenant", 5)
    pool = sent(request, offer_view(in_house=True, pool=True, salted=True))
    assert (pool["cache_salt"], "priority" in pool) == ("salt-of-tenant", False)
    assert "cache_salt" not in sent(request, offer_view(in_house=True, pool=True))
    assert "cache_salt" not in sent(request, OPENAI)
    assert "cache_salt" not in sent(request, ANTHROPIC)


def test_a_client_cannot_salt_another_tenant_s_cache() -> None:
    request = openai_request(cache_salt="stolen")
    request.cache_salt = "salt-of-tenant"

    assert sent(request, offer_view(salted=True))["cache_salt"] == "salt-of-tenant"


def test_anthropic_to_anthropic_keeps_what_it_does_not_know() -> None:
    request = anthropic_messages.parse(
        anthropic_body(thinking={"type": "enabled", "budget_tokens": 1024}, service_tier="auto"),
        {b"anthropic-version": b"2024-01-01", b"anthropic-beta": b"b1"},
    )

    call = wire_for("anthropic").build(request, ANTHROPIC, max_output_tokens=64)

    assert msgspec.json.decode(call.body) == {
        "model": "acme-small-v1",
        "max_tokens": 64,
        "messages": [USER],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "service_tier": "standard_only",
    }
    assert call.headers == {
        "content-type": "application/json",
        "anthropic-version": "2024-01-01",
        "anthropic-beta": "b1",
        "x-api-key": "upstream-secret",
    }


def test_images_cross_in_both_directions() -> None:
    url = "data:image/png;base64,aGk="
    block = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
    }
    part = {"type": "image_url", "image_url": {"url": url}}

    to_anthropic = sent(openai_request(messages=[{"role": "user", "content": [part]}]), ANTHROPIC)
    to_openai = sent(anthropic_request(messages=[{"role": "user", "content": [block]}]), OPENAI)

    assert to_anthropic["messages"] == [{"role": "user", "content": [block]}]
    assert to_openai["messages"] == [{"role": "user", "content": [part]}]


def test_an_image_in_a_tool_result_follows_as_the_user_s() -> None:
    source = {"type": "url", "url": "https://example.com/a.png"}
    result = {
        "type": "tool_result",
        "tool_use_id": "call_a",
        "content": [{"type": "text", "text": "See:"}, {"type": "image", "source": source}],
    }

    body = sent(anthropic_request(messages=[{"role": "user", "content": [result]}]), OPENAI)

    assert body["messages"] == [
        {"role": "tool", "tool_call_id": "call_a", "content": "See:"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
        },
    ]


def test_neighbours_of_one_role_become_one_message_of_anthropic() -> None:
    body = sent(
        openai_request(
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "a"},
                {"role": "user", "content": [{"type": "text", "text": "b"}]},
                {"role": "system", "content": "Really."},
            ]
        ),
        ANTHROPIC,
    )

    assert body["system"] == "Be brief.\n\nReally."
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_a_schema_for_the_answer_crosses_in_both_directions() -> None:
    schema = {"type": "object"}
    of_openai = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    of_anthropic = {"format": {"type": "json_schema", "schema": schema}}

    assert sent(openai_request(response_format=of_openai), ANTHROPIC)["output_config"] == (
        of_anthropic
    )
    assert sent(anthropic_request(output_config=of_anthropic), OPENAI)["response_format"] == (
        of_openai
    )


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "only a system prompt"}],
        [
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "a", "function": {"name": "f", "arguments": "not json"}},
                ],
            }
        ],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
    ],
)
def test_what_cannot_be_said_to_anthropic_is_the_request_s_own_fault(
    messages: list[dict[str, Any]],
) -> None:
    with pytest.raises(BadRequest):
        sent(openai_request(messages=messages), ANTHROPIC)


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("http://127.0.0.1:8101", "http://127.0.0.1:8101/v1/chat/completions"),
        ("http://127.0.0.1:8101/", "http://127.0.0.1:8101/v1/chat/completions"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("https://api.z.ai/api/paas/v4/", "https://api.z.ai/api/paas/v4/chat/completions"),
    ],
)
def test_openai_addresses(base_url: str, expected: str) -> None:
    assert openai_wire.endpoint(base_url) == expected


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://api.acme.example/anthropic", "https://api.acme.example/anthropic/v1/messages"),
    ],
)
def test_anthropic_addresses(base_url: str, expected: str) -> None:
    assert anthropic_wire.endpoint(base_url) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "text", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "role", "content", "source", "input", "name", "id", "function"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["messages", "system", "tools", "tool_choice", "metadata", "output_config", "stop",
     "response_format", "user", "stop_sequences", "parallel_tool_calls"]
)  # fmt: skip


@given(st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_json_is_translated_or_refused_never_a_crash(changed: dict[str, Any]) -> None:
    for make, offer in ((openai_request, ANTHROPIC), (anthropic_request, OPENAI)):
        try:
            sent(make(**changed), offer)
        except (InvalidRequest, BadRequest):
            continue
