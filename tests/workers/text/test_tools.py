import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from jsonschema import Draft202012Validator
from transformers import PreTrainedTokenizerFast

from tests.workers.engines import write_tiny_model
from tests.workers.servers import BEARER, MODEL, RunningWorker, chat_body, running_worker, sse
from workers.text.tokenizer import Tokenizer
from workers.text.tools import (
    Call,
    ForcedParser,
    FreeParser,
    Function,
    Parsed,
    forced_grammar,
    style_of,
)

# In the manner of the templates of Qwen and Hermes, written for this test.
HERMES_TEMPLATE = """
{%- if tools %}
{{- '<s>system: You may call functions.\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' ~ (tool | tojson) }}{% endfor %}
{{- '\\n</tools> Answer with <tool_call>{...}</tool_call>.</s>' }}
{%- endif %}
{%- for message in messages %}
{{- '<s>' ~ message.role ~ ': ' ~ message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n' ~ (call.function | tojson) ~ '\\n</tool_call>' }}
{%- endfor %}
{{- '</s>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<s>assistant: ' }}{% endif %}
"""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city, in degrees & <words>",
        "parameters": {
            "$defs": {"unit": {"enum": ["C", "F"]}},
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Lima"]}, "unit": {"$ref": "#/$defs/unit"}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A model whose template knows no tools."""
    folder = write_tiny_model(tmp_path_factory.mktemp("plain"), context=2048)
    with running_worker(folder, speculation="ngram", kv_blocks=400) as running:
        yield running


@pytest.fixture(scope="module")
def hermes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("hermes"), context=2048)
    (folder / "chat_template.jinja").write_text(HERMES_TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def hermes(hermes_dir: Path) -> Iterator[RunningWorker]:
    with running_worker(hermes_dir, kv_blocks=400) as running:
        yield running


def sdk(worker: RunningWorker) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{worker.url}/v1", api_key=BEARER, max_retries=0)


def error(response) -> dict[str, str]:
    return response.json()["error"]


@pytest.mark.parametrize("served", ["plain", "hermes"])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_forced_call_is_valid_for_the_official_sdk(
    served: str, choice: object, request: pytest.FixtureRequest
):
    # given
    worker: RunningWorker = request.getfixturevalue(served)
    fields = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Is it warm in Lima?"}],
        "tools": [WEATHER],
        "tool_choice": choice,
        "temperature": 1.0,
        "max_tokens": 120,
        "seed": 3,
    }

    # when
    with sdk(worker) as client:
        whole = client.chat.completions.create(**fields).choices[0]
        chunks = list(client.chat.completions.create(**fields, stream=True))
        pieces = [chunk.choices[0] for chunk in chunks]

    # then
    [call] = whole.message.tool_calls
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content is None
    assert call.function.name == "weather"
    schema = WEATHER["function"]["parameters"]
    Draft202012Validator(schema).validate(json.loads(call.function.arguments))
    assert call.id.startswith("call_")
    [streamed] = [call for piece in pieces for call in piece.delta.tool_calls or []]
    assert streamed.index == 0
    assert streamed.function.model_dump() == call.function.model_dump()
    assert pieces[0].delta.role == "assistant"
    assert pieces[-1].finish_reason == "tool_calls"


def test_required_chooses_among_the_tools(plain: RunningWorker):
    names = set()
    for seed in range(12):
        body = plain.chat(
            tools=[WEATHER, CLOCK],
            tool_choice="required",
            temperature=1.5,
            seed=seed,
            max_tokens=120,
        ).json()
        [call] = body["choices"][0]["message"]["tool_calls"]
        names.add(call["function"]["name"])
        if call["function"]["name"] == "clock":
            assert json.loads(call["function"]["arguments"]) == {}
    assert names == {"weather", "clock"}


@pytest.mark.parametrize("max_tokens", [1, 8, 20, 45])
def test_a_call_that_is_cut_is_no_call(plain: RunningWorker, max_tokens: int):
    body = plain.chat(tools=[WEATHER], tool_choice="required", max_tokens=max_tokens).json()
    [choice] = body["choices"]
    assert choice["finish_reason"] == "length"
    assert "tool_calls" not in choice["message"]
    assert '{"name": "weather", "arguments": '.startswith(choice["message"]["content"][:33])


def test_a_call_that_is_cut_is_no_call_in_a_stream_either(plain: RunningWorker):
    # when
    answer = plain.chat(tools=[WEATHER], tool_choice="required", max_tokens=45, stream=True)

    # then
    chunks = [chunk for chunk in sse(answer) if isinstance(chunk, dict)]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["length"]
    assert not any("tool_calls" in one["delta"] for one in choices)
    said = "".join(one["delta"].get("content") or "" for one in choices)
    assert said.startswith('{"name": "weather", ')


def test_a_model_that_knows_tools_may_answer_in_words(hermes: RunningWorker):
    body = hermes.chat(tools=[WEATHER], max_tokens=10).json()
    [choice] = body["choices"]
    assert choice["message"]["content"]
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "length"


def test_its_own_calls_are_found_in_its_text(hermes: RunningWorker):
    # given: a model that is steered to write a call after some words
    text = (
        'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    )
    engine = hermes.engine
    written = engine.tokenizer.encode(text) + [engine.model.config.eos_token_ids[0]]
    place = {"at": 0}
    logits = engine.model.logits

    def dictated(hidden):
        rows = logits(hidden).clone()
        for row in rows:
            row[written[min(place["at"], len(written) - 1)]] = 1e4
            place["at"] += 1
        return rows

    engine.model.logits = dictated
    try:
        # when
        with hermes.client.stream(
            "POST",
            "/v1/chat/completions",
            json=chat_body(tools=[WEATHER], stream=True, max_tokens=200, ignore_eos=False),
        ) as response:
            lines = [line for line in response.iter_lines() if line.startswith("data: {")]
    finally:
        engine.model.logits = logits

    # then
    choices = [json.loads(line[6:])["choices"][0] for line in lines]
    assert "".join(c["delta"].get("content") or "" for c in choices) == "Let me see."
    [call] = [call for c in choices for call in c["delta"].get("tool_calls", [])]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_a_conversation_with_calls_is_rendered_as_transformers_does(hermes_dir: Path):
    # given
    messages = [
        {"role": "user", "content": "Is it <warm> in Oslo & Lima?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ös"}}}
            ],
        },
        {"role": "tool", "content": "7 °C"},
    ]
    reference = PreTrainedTokenizerFast(tokenizer_file=str(hermes_dir / "tokenizer.json"))

    # then
    wanted = reference.apply_chat_template(
        messages,
        tools=[WEATHER],
        chat_template=HERMES_TEMPLATE,
        add_generation_prompt=True,
        tokenize=False,
    )
    tokenizer = Tokenizer(hermes_dir)
    assert tokenizer.tool_style == "hermes"
    ours = tokenizer.encode_chat(messages, tools=[WEATHER])
    assert tokenizer.decode(ours, keeps_special=True) == wanted


def test_results_of_calls_go_back_to_a_model_that_knows_tools(hermes: RunningWorker):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Warm?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "7 degrees"},
    ]
    assert hermes.chat(messages=messages, tools=[WEATHER]).status_code == 200
    call["function"]["arguments"] = "{broken"
    response = hermes.chat(messages=messages, tools=[WEATHER])
    assert (response.status_code, error(response)["param"]) == (400, "messages")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools"),
        ({"tools": [CLOCK, CLOCK], "tool_choice": "required"}, "tools"),
        ({"tools": [CLOCK] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": [CLOCK],
                "tool_choice": {"type": "function", "function": {"name": "weather"}},
            },
            "tool_choice",
        ),
        ({"tools": [CLOCK], "tool_choice": "maybe"}, "tool_choice"),
        (
            {
                "tools": [CLOCK],
                "tool_choice": "required",
                "response_format": {"type": "json_object"},
            },
            "response_format",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"type": "foo"}}}
                ],
                "tool_choice": "required",
            },
            "tools",
        ),
    ],
)
def test_tools_that_make_no_sense_are_refused(plain: RunningWorker, fields, param: str):
    response = plain.chat(**fields)
    assert response.status_code == 400
    assert error(response)["param"] == param
    assert plain.bridge.in_flight == 0


def test_templates_tell_how_a_model_writes_calls():
    assert style_of("{{ messages }}") is None
    assert style_of(HERMES_TEMPLATE) == "hermes"
    assert style_of("{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]") == "mistral"
    assert style_of('{% if tools %}{"name":, "parameters":}<|python_tag|>') == "llama"


ONE = Call("f", '{"a": 1}')
TWO = Call("g", "{}")
WRITTEN = [
    (
        "hermes",
        'Hi.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
        "Hi.",
        [ONE],
    ),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n'
        '<tool_call>{"name": "g", "arguments": {}}</tool_call>',
        "",
        [ONE, TWO],
    ),
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}', "", [ONE]),
    ("hermes", "<tool_call>nonsense</tool_call>", "<tool_call>nonsense</tool_call>", []),
    ("hermes", "a < b, <tool_", "a < b, <tool_", []),
    ("llama", '{"name": "f", "parameters": {"a": 1}}', "", [ONE]),
    ("llama", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', "", [ONE]),
    (
        "llama",
        '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
        "",
        [ONE, TWO],
    ),
    ("llama", '{"some": "json"}', '{"some": "json"}', []),
    ("llama", "Hello <|there|>", "Hello <|there|>", []),
    ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', "", [ONE]),
    (
        "mistral",
        'So: [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        "So: ",
        [ONE, TWO],
    ),
    ("mistral", "[TOOL_CALLS] oops", "[TOOL_CALLS] oops", []),
    ("mistral", "[TOOL", "[TOOL", []),
    ("hermes", "<tool_call>" + "[" * 100_000, "<tool_call>" + "[" * 100_000, []),
]


@pytest.mark.parametrize(("style", "text", "shown", "calls"), WRITTEN)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_found_however_the_text_arrives(style, text: str, shown: str, calls, size: int):
    # given
    parser, found = FreeParser(style), Parsed()
    text_pieces = [text[i : i + size] for i in range(0, min(len(text), 300), size)]
    text_pieces.append(text[len("".join(text_pieces)) :])

    # when
    for piece in text_pieces:
        parsed = parser.feed(piece)
        found.text += parsed.text
        found.calls += parsed.calls
    rest = parser.finish()

    # then
    assert found.text + rest.text == shown
    assert found.calls + rest.calls == calls


def test_a_forced_call_in_llamas_words():
    parser = ForcedParser()
    parser.feed('{"name": "f", "param')
    parser.feed('eters": {"a": 1}}')
    assert parser.finish() == Parsed(calls=[ONE])
    assert '\\"parameters\\": ' in forced_grammar([Function("f")], "llama")
