"""What the surfaces understand of a body, and what they refuse by name."""

from typing import Any

import pytest

from gateway.dataplane.surfaces import anthropic_messages, openai_chat, request_body
from gateway.errors import InvalidRequest
from tests.factories import anthropic_body, anthropic_request, openai_body, openai_request

PARSERS = [openai_chat.parse, anthropic_messages.parse]
USER = {"role": "user", "content": "x"}


def refused(body: bytes, parse: Any = openai_chat.parse) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as told:
        parse(body, {})
    return told.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("max_tokens", 10**30),
        ("max_tokens", 1.5),
        ("max_tokens", "10"),
        ("max_tokens", True),
        ("max_completion_tokens", 10_000_001),
        ("n", 0),
        ("n", 17),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("top_p", 1.1),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("seed", 2**70),
        ("top_logprobs", 21),
        ("stop", ["x"] * 17),
        ("stop", 7),
        ("stream", "yes"),
        ("tools", {"type": "function"}),
        ("tools", ["weather"]),
        ("model", ""),
        ("model", "m" * 201),
        ("model", 7),
        ("model", "small\0"),
        ("model", "small\n"),
        ("messages", []),
        ("messages", "hello"),
        ("service_tier", "gold"),
        ("provider", []),
        ("models", ["x"] * 51),
        ("models", ["small", "ti\0ny"]),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    error = refused(openai_body(**{field: value}))

    assert error.status == 400
    assert error.param is not None
    assert error.param.split(".")[0].split("[")[0] == field
    assert field in error.message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "wizard", "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
        ([{"role": "user"}], "messages[0].content"),
        ([USER, {"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    ],
)
def test_a_wrong_message_is_named(messages: list[object], param: str) -> None:
    assert refused(openai_body(messages=messages)).param == param


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"system": 7}, "system"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]},
            "messages[0].content[0].name",
        ),
    ],
)
def test_a_wrong_field_of_anthropic_is_named(changed: dict[str, Any], param: str) -> None:
    assert refused(anthropic_body(**changed), anthropic_messages.parse).param == param


def test_anthropic_demands_max_tokens() -> None:
    error = refused(b'{"model":"small","messages":[]}', anthropic_messages.parse)

    assert error.param in ("max_tokens", "messages")


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"model": "small"',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 01}',
        b'{"model": "\xff"}',
        b'{"unknown": "\xff"}',
        b'{"model": "\\ud800"}',
        b'\xef\xbb\xbf{"model": "small"}',
        b"{'model': 'small'}",
    ],
)
def test_what_is_not_json_is_refused(parse: Any, body: bytes) -> None:
    assert refused(body, parse).code == "invalid_json"


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"text"', b"{}"])
def test_json_that_is_no_request_is_refused(parse: Any, body: bytes) -> None:
    assert refused(body, parse).status == 400


@pytest.mark.parametrize("parse", PARSERS)
def test_a_number_beyond_any_float_is_refused(parse: Any) -> None:
    body = anthropic_body().replace(b'"max_tokens"', b'"temperature":1e999,"max_tokens"')

    assert refused(body, parse).param == "temperature"


@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
@pytest.mark.parametrize("parse", PARSERS)
def test_deep_nesting_is_refused(parse: Any, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    body = anthropic_body()[:-1] + b',"extra":' + nested + b"}"

    assert refused(body, parse).code == "too_deeply_nested"


def test_brackets_inside_text_are_not_nesting() -> None:
    text = '{"[' * 500 + '\\" \\\\'

    request = openai_request(messages=[{"role": "user", "content": text}])

    assert request.all_text


@pytest.mark.parametrize(
    ("body", "within"),
    [
        (b'{"a":[1,2,{"b":[]}]}', 4),
        (b'{"a":"]]]]{{{{\\"","b":["x\\\\"]}', 2),
        (b"[" * 70 + b"]" * 70, 70),
    ],
)
def test_depth_is_counted_exactly(body: bytes, within: int) -> None:
    # More brackets than the bound, so that the quick way out is not taken.
    body = b"[" + body + b",[]" * 100 + b"]"

    assert request_body.depth_within(body, within + 1)
    assert not request_body.depth_within(body, within)


def test_model_suffixes_and_routing_fields_are_read() -> None:
    request = openai_request(
        model="small:nitro",
        models=["small", "tiny"],
        provider={
            "order": ["acme"],
            "only": ["acme", "bolt"],
            "ignore": ["cura"],
            "allow_fallbacks": False,
            "sort": {"by": "price"},
            "max_price": {"prompt": "0.15", "completion": 0.6},
            "data_collection": "deny",
            "require_parameters": True,
        },
    )

    assert request.model == "small"
    routing = request.routing
    assert routing.sort == "throughput"
    assert (routing.order, routing.only, routing.ignore) == (("acme",), ("acme", "bolt"), ("cura",))
    assert routing.models == ("small", "tiny")
    assert not routing.allow_fallbacks
    assert routing.require_parameters
    assert (routing.max_input_pico, routing.max_output_pico) == (150_000, 600_000)


def test_a_colon_in_a_name_is_not_a_suffix() -> None:
    assert openai_request(model="llama3:8b").model == "llama3:8b"


def test_the_first_of_models_is_the_model() -> None:
    body = b'{"models":["tiny","small"],"messages":[{"role":"user","content":"x"}]}'

    assert openai_chat.parse(body, {}).model == "tiny"


@pytest.mark.parametrize("price", ["NaN", "-1", "Infinity", 1e300])
def test_an_absurd_price_ceiling_is_refused(price: object) -> None:
    error = refused(openai_body(provider={"max_price": {"prompt": price}}))

    assert error.param == "provider.max_price.prompt"


def test_headers_are_read_and_bounded() -> None:
    headers = {
        b"x-tokenhouse-explain": b"1",
        b"x-tokenhouse-tag": b"nightly\x00" + b"x" * 200,
        b"x-session-id": b"conversation-7",
    }

    request = openai_chat.parse(openai_body(), headers)

    assert request.explain
    assert request.tag == "nightly" + "x" * 57
    assert request.session_id == "conversation-7"


@pytest.mark.parametrize(
    ("changed", "needs"),
    [
        ({}, set()),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools"}),
        ({"tools": []}, set()),
        ({"tools": [{"type": "web_search"}]}, {"tools", "server_tools"}),
        ({"web_search_options": {}}, {"server_tools"}),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"n": 2}, {"n"}),
        ({"logprobs": True}, {"logprobs"}),
        ({"functions": [{"name": "f"}]}, {"tools", "functions"}),
    ],
)
def test_needs_of_an_openai_request(changed: dict[str, Any], needs: set[str]) -> None:
    assert openai_request(**changed).needs == needs


@pytest.mark.parametrize(
    ("changed", "needs", "all_text"),
    [
        ({}, set(), True),
        ({"tools": [{"name": "f", "input_schema": {}}]}, {"tools"}, True),
        ({"tool_choice": {"type": "auto"}}, set(), True),
        ({"container": "c1"}, {"server_tools"}, False),
        ({"mcp_servers": [{"url": "https://x"}]}, {"server_tools"}, False),
        ({"system": [{"type": "image"}]}, {"vision"}, False),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "a",
                                "content": [{"type": "image"}],
                            }
                        ],
                    }
                ]
            },
            {"vision"},
            False,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
            {"files"},
            False,
        ),
    ],
)
def test_needs_of_an_anthropic_request(
    changed: dict[str, Any], needs: set[str], all_text: bool
) -> None:
    request = anthropic_request(**changed)

    assert request.needs == needs
    assert request.all_text is all_text


def test_only_the_vendor_s_own_headers_are_passed_on() -> None:
    headers = {b"anthropic-beta": b"a,b", b"x-api-key": b"tk-secret", b"cookie": b"c"}

    request = anthropic_messages.parse(anthropic_body(), headers)

    assert request.passed_headers == {"anthropic-beta": "a,b"}
