"""The conversation between dialects and wires: all of it survives, or the caller is told."""

import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.surfaces.reading import anthropic, openai
from providers.chat import ChatRequest
from providers.conversation import (
    Audio,
    CacheMark,
    Conversation,
    Document,
    Format,
    Function,
    Image,
    Inline,
    Nuance,
    Part,
    Reasoning,
    Sampling,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from providers.errors import CannotSay
from providers.wires import registry
from providers.wires.anthropic.request import messages_body
from providers.wires.openai.request import chat_body
from tests.factories import anthropic_request, offer_view, openai_request

OPENAI = offer_view()
ANTHROPIC = offer_view(wire="anthropic", model="claude-3")
WRITERS = {"openai": chat_body, "anthropic": messages_body}
READERS = {"openai": openai.read, "anthropic": anthropic.read}
SCHEMA = msgspec.Raw(b'{"type":"object"}')
PICTURE = Image(Inline("image/png", "aGk="))
CACHED = {"type": "ephemeral", "ttl": "1h"}


def fields_of(body: object) -> Mapping[str, msgspec.Raw]:
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, msgspec.Raw])


def meant(said: Conversation) -> dict[str, Any]:
    """What it says, whatever it was said in: neighbours of one role are one turn."""
    turns: list[Turn] = []
    for turn in said.turns:
        role = "system" if turn.role == "developer" else turn.role
        parts: tuple[Part, ...] = turn.parts
        if turns and turns[-1].role == role:
            turns[-1] = Turn(role, turns[-1].parts + parts)
        else:
            turns.append(Turn(role, parts))
    plain = msgspec.structs.replace(said, turns=tuple(turns), names={}, unread=frozenset())
    written: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(msgspec.to_builtins(plain, enc_hook=lambda raw: bytes(raw).decode()))
    )
    return written


def again(said: Conversation, spoken: str) -> Conversation:
    return READERS[spoken](fields_of(WRITERS[spoken](said)))


WORDS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)
TEXTS = st.builds(Text, WORDS)
CALLS = st.builds(
    ToolCall,
    id=WORDS,
    name=st.sampled_from(["f", "g"]),
    arguments=st.sampled_from(["{}", '{"a":1}', '{"b":[null,"é"]}']),
)
RESULTS = st.builds(
    ToolResult, call_id=WORDS, content=WORDS | st.tuples(TEXTS, TEXTS)
)  # an image in one follows as the user's
ASKED = st.lists(RESULTS, max_size=2).flatmap(
    lambda results: st.lists(TEXTS | st.just(PICTURE), min_size=1, max_size=3).map(
        lambda parts: Turn("user", (*results, *parts))
    )
)
ANSWERED = st.tuples(TEXTS, st.lists(CALLS, max_size=2)).map(
    lambda each: Turn("assistant", (each[0], *each[1]))
)
FUNCTIONS = st.builds(
    Function, name=st.sampled_from(["f", "g"]), description=WORDS, schema=st.just(SCHEMA)
)
CHOICES = st.builds(ToolChoice, mode=st.sampled_from(["auto", "required"])) | st.just(
    ToolChoice(name="f", parallel=False)
)
CONVERSATIONS = st.builds(
    Conversation,
    turns=st.tuples(st.just(Turn("system", (Text("Be brief."),))), ASKED, ANSWERED, ASKED),
    tools=st.lists(FUNCTIONS, min_size=1, max_size=2).map(tuple),
    choice=CHOICES,
    format=st.none() | st.just(Format(SCHEMA, "answer")),
    sampling=st.builds(Sampling, temperature=st.none() | st.sampled_from([0, 0.5])),
    stop=st.lists(WORDS, max_size=2).map(tuple),
    user=WORDS,
)


@given(CONVERSATIONS, st.sampled_from(sorted(WRITERS)))
def test_what_both_can_say_survives_each_of_them(said: Conversation, spoken: str) -> None:
    heard = again(said, spoken)
    if spoken == "anthropic" and heard.format is not None:
        heard = msgspec.structs.replace(heard, format=Format(heard.format.schema, "answer"))

    assert meant(heard) == meant(said)
    assert heard.unread == frozenset()


@pytest.mark.parametrize(
    "said",
    [
        Turn("user", (Text("a", cache=CacheMark("1h")), Image(Inline("image/png", "aGk=")))),
        Turn("user", (Document(Inline("application/pdf", "aGk="), "t", "c", cited=True),)),
        Turn("user", (Document("words", "t"), Document((Text("part"),)))),
        Turn("user", (ToolResult("c", (PICTURE, Text("a")), is_error=True, cache=CacheMark()),)),
        Turn("assistant", (Reasoning("hm", "sig", vendor="anthropic"), Text("a"))),
        Turn("assistant", (Reasoning(sealed="x", vendor="anthropic"), ToolCall("c", "f", "{}"))),
    ],
)
def test_anthropic_s_own_parts_survive_its_wire(said: Turn) -> None:
    conversation = Conversation((said, Turn("user", (Text("b"),))))

    assert meant(again(conversation, "anthropic")) == meant(conversation)


@pytest.mark.parametrize(
    "said",
    [
        Turn("user", (Image(Inline("image/png", "aGk="), "high"),), "Ann"),
        Turn("user", (Audio(Inline("", "aGk="), "wav"), Text("a"))),
        Turn("user", (Document(Inline("application/pdf", "aGk="), "t"),)),
        Turn("assistant", (Text("No.", refused=True),)),
        Turn("assistant", (ToolCall("c", "f", "free text", is_free=True),)),
    ],
)
def test_openai_s_own_parts_survive_its_wire(said: Turn) -> None:
    heard = again(Conversation((said,)), "openai")

    assert heard.turns == (said,)


def test_openai_s_own_settings_survive_its_wire() -> None:
    said = Conversation(
        (Turn("developer", (Text("a"),)),),
        tools=(Function("f"), Function("g")),
        choice=ToolChoice("required", allowed=("g",), parallel=True),
        format=Format(None),
        sampling=Sampling(1.5, 0.9, None, 7, 0.5, -0.5),
    )

    heard = again(said, "openai")

    assert (heard.turns, heard.tools, heard.choice) == (said.turns, said.tools, said.choice)
    assert (heard.format, heard.sampling) == (said.format, said.sampling)


def sent(request: ChatRequest, offer: Any) -> dict[str, Any]:
    call = registry.wire_for(offer.wire).build(request, offer, max_output_tokens=64)
    body: dict[str, Any] = msgspec.json.decode(call.body)
    return body


def user(*parts: object) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def assistant(**fields: object) -> dict[str, Any]:
    return {"role": "assistant", **fields}


HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "strict": True}}
URL = {"url": "https://e.example/a.png", "detail": "high"}
BLOCK = {"type": "text", "text": "a"}
PNG = {"type": "image_url", "image_url": "data:image/png;base64,aGk="}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
ALLOWING_NONE = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}


@pytest.mark.parametrize(
    ("nuance", "changed", "told"),
    [
        (Nuance.SEED, {"seed": 7}, "seed"),
        (Nuance.PRESENCE_PENALTY, {"presence_penalty": 1}, "presence_penalty"),
        (Nuance.FREQUENCY_PENALTY, {"frequency_penalty": 0}, "frequency_penalty"),
        (Nuance.TEMPERATURE, {"temperature": 1.5}, "temperature"),
        (Nuance.EFFORT, {"reasoning_effort": "low"}, "reasoning_effort"),
        (Nuance.THINKING, {"reasoning": {"max_tokens": 9, "exclude": True}}, "reasoning"),
        (Nuance.SPEAKERS, {"messages": [{**HI, "name": "Ann"}]}, "messages.name"),
        (
            Nuance.DETAIL,
            {"messages": [user({"type": "image_url", "image_url": URL})]},
            "image_url.detail",
        ),
        (
            Nuance.REASONING,
            {"messages": [HI, assistant(content="a", reasoning_content="hm"), HI]},
            "messages.reasoning",
        ),
        (Nuance.STRICT_TOOLS, {"tools": [TOOL]}, "tools.strict"),
    ],
)
def test_what_anthropic_s_api_has_no_words_for_is_told(
    nuance: Nuance, changed: dict[str, Any], told: str
) -> None:
    request = openai_request(**changed)

    assert registry.left_out(request, ANTHROPIC) == [told]
    assert nuance in registry.wire_for("anthropic").unsaid(request.conversation)
    assert registry.left_out(request, OPENAI) == []


@pytest.mark.parametrize(
    ("nuance", "changed", "told"),
    [
        (Nuance.TOP_K, {"top_k": 3}, "top_k"),
        (Nuance.EFFORT, {"output_config": {"effort": "low"}}, "output_config.effort"),
        (Nuance.THINKING, {"thinking": {"type": "adaptive", "display": "x"}}, "thinking"),
        (Nuance.CACHE_MARKS, {"system": [{**BLOCK, "cache_control": CACHED}]}, "cache_control"),
        (
            Nuance.CACHE_MARKS,
            {"tools": [{"name": "f", "input_schema": {}, "cache_control": CACHED}]},
            "cache_control",
        ),
        (
            Nuance.REASONING,
            {"messages": [HI, assistant(content=[
                {"type": "thinking", "thinking": "hm", "signature": "s"}, BLOCK
            ]), HI]},
            "messages.thinking",
        ),
        (
            Nuance.TOOL_ERRORS,
            {"messages": [user({"type": "tool_result", "tool_use_id": "c", "is_error": True})]},
            "tool_result.is_error",
        ),
        (Nuance.STRICT_TOOLS, {"tools": [{"name": "f", "strict": True}]}, "tools.strict"),
    ],
)  # fmt: skip
def test_what_chat_completions_have_no_words_for_is_told(
    nuance: Nuance, changed: dict[str, Any], told: str
) -> None:
    request = anthropic_request(**changed)

    assert registry.left_out(request, OPENAI) == [told]
    assert nuance in registry.wire_for("openai").unsaid(request.conversation)
    assert registry.left_out(request, ANTHROPIC) == []


def test_what_nobody_here_knows_is_told_wherever_it_stands() -> None:
    of_openai = openai_request(
        messages=[{**user({**BLOCK, "odd": 1, "none": None}), "prefix": True}],
        tools=[{**TOOL, "function": {"name": "f", "odd": {"a": 1}}, "odd": "x"}],
    )
    of_anthropic = anthropic_request(
        messages=[{**user({**BLOCK, "odd": 1}), "output_config": {"effort": "low"}}],
        tools=[{"name": "f", "input_schema": {}, "defer_loading": True}],
        output_config={"odd": 1},
        metadata={"user_id": "u", "odd": 1},
    )

    assert registry.left_out(of_openai, ANTHROPIC) == [
        "messages.content.odd",
        "messages.prefix",
        "tools.function.odd",
        "tools.odd",
    ]
    assert registry.left_out(of_anthropic, OPENAI) == [
        "messages.output_config",
        "metadata.odd",
        "output_config.odd",
        "text.odd",
        "tools.defer_loading",
    ]


def test_a_cache_mark_of_an_openai_client_reaches_anthropic() -> None:
    marked = {**BLOCK, "cache_control": CACHED}
    request = openai_request(messages=[{"role": "system", "content": [marked]}, user(marked)])

    body = sent(request, ANTHROPIC)

    assert body["system"] == [marked]
    assert body["messages"] == [user(marked)]
    assert registry.left_out(request, ANTHROPIC) == []


def test_a_refusal_is_said_again() -> None:
    said = assistant(content=None, refusal="No.")

    body = sent(openai_request(messages=[HI, said, HI]), ANTHROPIC)

    assert body["messages"][1] == assistant(content=[{"type": "text", "text": "No."}])


def test_an_answer_of_nothing_but_thoughts_has_an_empty_text() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}

    body = sent(anthropic_request(messages=[HI, assistant(content=[thought]), HI]), OPENAI)

    assert body["messages"][1] == assistant(content="")


@pytest.mark.parametrize(
    "request_",
    [
        openai_request(messages=[HI, assistant(content=None, audio={"id": "a"}), HI]),
        openai_request(messages=[user({"type": "video_url", "video_url": URL})]),
        openai_request(response_format={"type": "grammar"}),
        openai_request(messages=[user({"type": "file", "file": {"file_id": "f"}})]),
        openai_request(messages=[{"role": "system", "content": [PNG]}, HI]),
        openai_request(messages=[{"role": "system", "content": [BLOCK, PNG]}, HI]),
        openai_request(tools=[TOOL], tool_choice=ALLOWING_NONE),
        anthropic_request(system=[BLOCK, IMAGE]),
        anthropic_request(system=[{"type": "document", "source": {"type": "text", "data": "a"}}]),
        anthropic_request(messages=[user()]),
        anthropic_request(tools=[{"name": "f"}], tool_choice={"type": "tool"}),
    ],
)
def test_what_matters_and_has_no_words_is_never_left_out(request_: ChatRequest) -> None:
    with pytest.raises(CannotSay):
        sent(request_, ANTHROPIC if request_.dialect == "openai" else OPENAI)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"messages": [{**HI, "reasoning": "hm"}]}, ["messages.reasoning"]),
        (
            {"messages": [user({**BLOCK, "image_url": URL, "refusal": "no"})]},
            ["messages.content.image_url", "messages.content.refusal"],
        ),
        ({"messages": [user({**BLOCK, "image_url": None, "refusal": ""})]}, []),
        ({"": 1, "top_a": 3, "a": {"b": 1}, "a.b": 2}, ["?", "a", "top_a"]),
    ],
)
def test_what_stands_where_it_has_no_place_is_told(
    changed: dict[str, Any], told: list[str]
) -> None:
    assert registry.left_out(openai_request(**changed), ANTHROPIC) == told


def test_calls_in_the_place_of_a_result_are_not_dropped() -> None:
    called = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "b", "content": "x", "tool_calls": [called]}

    (message,) = sent(openai_request(messages=[result]), ANTHROPIC)["messages"]

    assert [block["type"] for block in message["content"]] == ["tool_result", "tool_use"]


ARGUMENTS = '{"a":1.00000000000000000001,"b":[1E+2,123456789012345678901234567890],"c":"\\u00e9"}'


@pytest.mark.parametrize("request_", [
    openai_request(messages=[assistant(tool_calls=[
        {"id": "c", "function": {"name": "f", "arguments": ARGUMENTS}}
    ]), HI]),
    anthropic_request(messages=[HI, assistant(content=[
        {"type": "tool_use", "id": "c", "name": "f", "input": msgspec.Raw(ARGUMENTS.encode())}
    ])]),
])  # fmt: skip
def test_arguments_of_calls_keep_the_digits_that_they_were_written_with(
    request_: ChatRequest,
) -> None:
    offer = ANTHROPIC if request_.dialect == "openai" else OPENAI
    body = registry.wire_for(offer.wire).build(request_, offer, max_output_tokens=64).body

    assert ARGUMENTS.encode() in body.replace(b'\\"', b'"').replace(b"\\\\", b"\\")


@pytest.mark.parametrize(
    "arguments", ["[" * 100_000, "NaN", '{"a":1e999}', '{"a":"\\ud800"}', "{}x"]
)
def test_arguments_that_are_no_json_are_told_of_and_no_fault_of_ours(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}

    with pytest.raises(CannotSay):
        sent(openai_request(messages=[assistant(tool_calls=[call]), HI]), ANTHROPIC)


def test_a_conversation_is_read_once_and_only_where_the_wire_is_another() -> None:
    reads = []

    def read(fields: Mapping[str, msgspec.Raw]) -> Conversation:
        reads.append(fields)
        return openai.read(fields)

    request = openai_request()
    request.read = read

    sent(request, OPENAI)
    registry.left_out(request, OPENAI)
    assert reads == []
    sent(request, ANTHROPIC)
    sent(request, ANTHROPIC)
    registry.left_out(request, ANTHROPIC)
    assert len(reads) == 1


@pytest.mark.parametrize("messages", [[{"role": "user", "content": "hi"}], [{"role": "jester"}]])
def test_however_many_offers_are_asked_about_it_is_read_and_looked_through_once(
    monkeypatch: pytest.MonkeyPatch, messages: list[dict[str, str]]
) -> None:
    # given: also one whose reading fails
    looks, reads = [], []

    def read(fields: Mapping[str, msgspec.Raw]) -> Conversation:
        reads.append(fields)
        return openai.read({**fields, "messages": msgspec.Raw(msgspec.json.encode(messages))})

    def unsaid(conversation: Conversation) -> set[Nuance]:
        looks.append(conversation)
        return set()

    monkeypatch.setattr(registry.wire_for("anthropic"), "unsaid", unsaid)
    request = openai_request(seed=7)
    request.read = read

    # when
    for number in range(30):
        registry.left_out(
            request, offer_view(id=number, provider=f"seller-{number}", wire="anthropic")
        )
    for _ in range(2):
        with contextlib.suppress(CannotSay):
            sent(request, ANTHROPIC)

    # then
    assert len(reads) == 1
    assert len(looks) == (len(messages[0]) == 2)
