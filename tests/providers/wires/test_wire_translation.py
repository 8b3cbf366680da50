"""What crosses from one dialect to the other, what is a reason against an offer, what is told."""

from typing import Any

import msgspec
import pytest

from gateway.routing.policies import PolicyView
from providers.chat import ChatRequest, OfferView
from providers.errors import CannotSay
from providers.wires import registry
from providers.wires.registry import wire_for
from tests.factories import anthropic_request, offer_view, openai_request
from tests.gateway.routing.test_routing import rank

OPENAI = offer_view(id=1, sku="bolt/small", provider="bolt")
ANTHROPIC = offer_view(id=2, wire="anthropic", base_url="https://api.acme.example")
PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,aGk="
IMAGE = {"type": "base64", "media_type": "image/png", "data": "aGk="}


def sent(request: ChatRequest, offer: OfferView) -> dict[str, Any]:
    call = wire_for(offer.wire).build(request, offer, max_output_tokens=64)
    return dict(msgspec.json.decode(call.body))


def asked(*messages: dict[str, Any], **more: Any) -> ChatRequest:
    return openai_request(messages=list(messages), **more)


def told(*messages: dict[str, Any], **more: Any) -> ChatRequest:
    return anthropic_request(messages=list(messages), **more)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}
OTHER = {"type": "function", "function": {"name": "g", "parameters": {}}}
ALLOWED = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}


def test_an_image_in_a_tool_s_answer_reaches_anthropic() -> None:
    parts = [text("See:"), {"type": "image_url", "image_url": {"url": PNG}}]
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    request = asked(
        user("x"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": parts},
        tools=[FUNCTION],
    )

    body = sent(request, ANTHROPIC)

    # a call without arguments has an empty input
    assert body["messages"][1]["content"][0]["input"] == {}
    (result,) = body["messages"][2]["content"]
    assert result["content"] == [text("See:"), {"type": "image", "source": IMAGE}]
    assert request.needs == {"tools", "vision"}


def test_allowed_tools_are_those_that_are_sent() -> None:
    choice = {"type": "allowed_tools", "allowed_tools": ALLOWED}

    body = sent(openai_request(tools=[FUNCTION, OTHER], tool_choice=choice), ANTHROPIC)

    assert [tool["name"] for tool in body["tools"]] == ["g"]
    assert body["tool_choice"] == {"type": "any"}
    with pytest.raises(CannotSay):
        sent(openai_request(tools=[FUNCTION], tool_choice=choice), ANTHROPIC)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"temperature": 0.3, "top_p": 1}, {"temperature": 0.3}),
        ({"temperature": 1, "top_p": 0.9}, {"top_p": 0.9}),
        ({"temperature": 0.3, "top_p": 0.9}, {"temperature": 0.3, "top_p": 0.9}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"top_k": -1}, {}),
    ],
)
def test_of_temperature_and_top_p_the_one_that_says_nothing_is_left_out(
    sampling: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = sent(openai_request(**sampling), ANTHROPIC)

    assert {n: body[n] for n in ("temperature", "top_p", "top_k") if n in body} == expected


@pytest.mark.parametrize(
    ("model", "is_refused"),
    [
        ("claude-opus-5-5", True),
        ("claude-sonnet-4-5", True),
        ("claude-opus-4-1", True),
        ("claude-sonnet-4", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-3-7-sonnet", False),
        ("qwen3", False),
    ],
)
def test_both_at_once_are_a_reason_against_a_model_that_refuses_them(
    model: str, is_refused: bool
) -> None:
    offer = offer_view(wire="anthropic", model=model)
    request = openai_request(temperature=0.3, top_p=0.9)

    assert bool(registry.lacks(request, offer)) is is_refused
    assert not registry.lacks(anthropic_request(temperature=0.3, top_p=0.9), offer)


def test_several_texts_stay_several_and_nothing_is_put_between_them() -> None:
    system = [text("Be brief."), text("Really.")]
    said = {"role": "assistant", "content": [text("Hel"), text("lo")]}
    request = told(user([text("a"), text("b")]), said, user("c"), system=system)

    assert sent(request, OPENAI)["messages"] == [
        {"role": "system", "content": system},
        user([text("a"), text("b")]),
        {"role": "assistant", "content": "Hello"},
        user("c"),
    ]
    body = sent(asked({"role": "system", "content": system}, user("a")), ANTHROPIC)
    assert body["system"] == system


def test_a_document_of_text_is_text_elsewhere_and_a_pdf_is_one_at_anthropic() -> None:
    document = {
        "type": "document",
        "title": "Fox",
        "source": {"type": "text", "media_type": "text/plain", "data": "It jumps."},
    }
    request = told(user([document, text("Why?")]))
    file = {"type": "file", "file": {"filename": "fox.pdf", "file_data": PDF}}

    assert request.all_text
    assert sent(request, OPENAI)["messages"] == [
        user([text("Fox"), text("It jumps."), text("Why?")])
    ]
    assert sent(asked(user([file])), ANTHROPIC)["messages"][0]["content"] == [
        {
            "type": "document",
            "title": "fox.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
        }
    ]


def test_messages_that_say_nothing_are_not_sent_to_anthropic() -> None:
    request = asked(user("a"), {"role": "assistant", "content": " "}, user("b"))

    assert sent(request, ANTHROPIC)["messages"] == [user([text("a"), text("b")])]
    ends = asked(user("a"), {"role": "assistant", "content": "So: "})
    assert sent(ends, ANTHROPIC)["messages"][-1]["content"] == [text("So:")]


def test_thoughts_that_nobody_signed_do_not_go_to_who_checks_signatures() -> None:
    signed = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    unsigned = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    request = told(
        user("a"),
        {"role": "assistant", "content": [unsigned, text("b")]},
        {"role": "assistant", "content": [unsigned]},
        {"role": "assistant", "content": [signed, text("c")]},
        user("d"),
    )

    assert sent(request, ANTHROPIC)["messages"] == [
        user("a"),
        {"role": "assistant", "content": [text("b")]},
        {"role": "assistant", "content": [signed, text("c")]},
        user("d"),
    ]


FILE_ID = {"type": "file", "file": {"file_id": "file-1"}}
CITED = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
    "citations": {"enabled": True},
}
PDF_BLOCK = {"type": "document", "source": {"type": "base64", "data": "aGk="}}
ASSISTANT = {"role": "assistant", "content": "So"}


@pytest.mark.parametrize(
    ("request_", "offer", "need"),
    [
        (openai_request(stop="\n\n"), ANTHROPIC, "whitespace_stop"),
        (openai_request(stop=["END", " "]), ANTHROPIC, "whitespace_stop"),
        (asked(user("a"), user("")), ANTHROPIC, "empty_last_message"),
        (asked(user("a"), user([text(" ")])), ANTHROPIC, "empty_last_message"),
        (
            asked(user("a"), {"role": "function", "name": "f", "content": "1"}),
            ANTHROPIC,
            "functions",
        ),
        (asked(user([FILE_ID])), ANTHROPIC, "files"),
        (told(user("a"), ASSISTANT), OPENAI, "prefill"),
        (told(user([CITED])), OPENAI, "citations"),
        (told(user([PDF_BLOCK])), OPENAI, "files"),
        (
            anthropic_request(tools=[{"type": "bash_20250124", "name": "bash"}]),
            OPENAI,
            "client_tools",
        ),
    ],
)
def test_what_cannot_be_said_is_a_reason_against_that_offer_alone(
    request_: ChatRequest, offer: OfferView, need: str
) -> None:
    # given an offer of the request's own dialect beside it
    other = ANTHROPIC if offer is OPENAI else OPENAI

    ranking = rank(offer, other, request=request_, policy=PolicyView())

    assert [c.offer.provider for c in ranking.candidates] == [other.provider]
    (rejection,) = ranking.rejections
    assert (rejection.code, rejection.reason) == (
        "dialect",
        f"{need} cannot be said in its API",
    )


@pytest.mark.parametrize(
    "kind", ["bash_20250124", "text_editor_20250728", "memory_20250818", "computer_20251124"]
)
def test_tools_that_the_caller_runs_are_no_server_tools(kind: str) -> None:
    tools = [{"type": kind, "name": "x"}, {"name": "y", "input_schema": {}}]

    request = anthropic_request(tools=tools)

    assert request.needs == {"tools", "client_tools"}
    assert request.all_text
    assert sent(request, ANTHROPIC)["tools"] == tools
    ranking = rank(ANTHROPIC, request=request)
    # what the vendor says of such a tool is part of the prompt
    assert ranking.candidates[0].input_bound == 64 + request.text_bytes + 16 + 600 + 2 * 64 + 1_500


def test_tools_that_the_vendor_runs_stay_unpriced() -> None:
    for kind in ("web_search_20250305", "code_execution_20250825", "bash"):
        assert "server_tools" in anthropic_request(tools=[{"type": kind, "name": "x"}]).needs


def test_what_only_tunes_is_left_out_and_named() -> None:
    request = openai_request(
        seed=7, logit_bias={"5": 1}, temperature=1.5, metadata={}, **{"x\r\ny": 1}
    )
    of_anthropic = anthropic_request(
        thinking={"type": "adaptive"}, top_k=3, output_config={"effort": "high"}
    )

    assert registry.left_out(request, ANTHROPIC) == ["?", "logit_bias", "seed", "temperature"]
    assert registry.left_out(request, OPENAI) == ["?"]
    assert registry.left_out(of_anthropic, OPENAI) == [
        "output_config.effort",
        "thinking",
        "top_k",
    ]
