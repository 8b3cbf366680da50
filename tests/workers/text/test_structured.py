import itertools
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.workers.engines import make_engine, request, run
from workers.engine.sequence import FinishReason
from workers.text import formats
from workers.text.structured import (
    CACHED_GRAMMARS_MAX,
    GRAMMAR_BYTES_MAX,
    GrammarCompiler,
    GrammarFailed,
    GrammarRefused,
)

WORD = {"type": "string", "pattern": "^[a-z]{1,6}$"}
SCHEMAS = {
    "flat": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "mood": {"enum": ["calm", "cross", None, 3]},
        },
        "required": ["name", "age", "mood"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "array",
        "minItems": 2,
        "maxItems": 3,
        "items": {
            "type": "object",
            "properties": {"word": WORD, "known": {"type": "boolean"}},
            "required": ["word", "known"],
            "additionalProperties": False,
        },
    },
    "choice": {"anyOf": [{"type": "number", "minimum": 1, "maximum": 2}, {"const": "none"}]},
    "referring": {
        "$defs": {"pair": {"type": "array", "prefixItems": [WORD, WORD], "items": False}},
        "type": "object",
        "properties": {"first": {"$ref": "#/$defs/pair"}},
        "required": ["first"],
        "additionalProperties": False,
    },
    "date": {"type": "string", "format": "date"},
    "annotated": {
        "type": "object",
        "properties": {"format": {"type": "string", "format": "phone", "maxLength": 5}},
        "required": ["format"],
        "additionalProperties": False,
    },
}
PROMPT = list(range(10, 40))


@pytest.fixture(scope="module")
def engines(tiny_model_dir: Path):
    """The same model without drafts, and with them at any price."""
    return {kind: make_engine(tiny_model_dir, speculation=kind) for kind in ("off", "ngram")}


def compiler(engine) -> GrammarCompiler:
    config = engine.model.config
    return GrammarCompiler(
        engine.tokenizer.to_json(), vocab_size=config.vocab_size, eos=config.eos_token_ids
    )


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_answer_is_valid_with_and_without_drafts(engines, name: str, temperature: float):
    # given: a random model, which would never write JSON by itself
    texts: dict[str, list[str]] = {}
    for kind, engine in engines.items():
        grammar = compiler(engine).json_schema(json.dumps(SCHEMAS[name]))

        # when
        answers = run(
            engine,
            [
                request(
                    f"r{seed}",
                    PROMPT,
                    max_tokens=300,
                    temperature=temperature,
                    seed=seed,
                    grammar=grammar,
                )
                for seed in range(6)
            ],
        )

        # then
        texts[kind] = [answer.text for answer in answers]
        for answer in answers:
            Draft202012Validator(
                SCHEMAS[name], format_checker=Draft202012Validator.FORMAT_CHECKER
            ).validate(json.loads(answer.text))
            assert answer.finish_reason is FinishReason.STOP
    assert texts["off"] == texts["ngram"]
    if temperature:
        assert len(set(texts["off"])) > 1


def test_forced_text_is_drafted_and_accepted(engines):
    # given
    engine = engines["ngram"]
    keys = [f"a_rather_long_key_{index}" for index in range(4)]
    schema = {
        "type": "object",
        "properties": {key: {"type": "boolean"} for key in keys},
        "required": keys,
        "additionalProperties": False,
    }
    grammar = compiler(engine).json_schema(json.dumps(schema))

    # when
    [answer] = run(engine, [request("a", PROMPT, max_tokens=200, grammar=grammar)])

    # then: a byte-level vocabulary leaves one spelling, so every forced token was right
    assert set(json.loads(answer.text)) == set(keys)
    assert answer.usage.accepted == answer.usage.drafted > 40


def test_a_cut_answer_says_so(engines):
    engine = engines["ngram"]
    grammar = compiler(engine).json_schema(json.dumps(SCHEMAS["nested"]))
    [answer] = run(engine, [request("a", PROMPT, max_tokens=12, grammar=grammar)])
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.usage.completion_tokens == 12
    assert answer.text.startswith('[{"word": "')


def test_an_answer_that_is_complete_at_its_limit_has_stopped(engines):
    engine = engines["off"]
    grammar = compiler(engine).json_schema('{"const": "yes"}')
    [answer] = run(engine, [request("a", PROMPT, max_tokens=len('"yes"'), grammar=grammar)])
    assert (answer.text, answer.finish_reason) == ('"yes"', FinishReason.STOP)


def test_penalties_and_bias_cannot_break_the_grammar(engines):
    engine = engines["ngram"]
    grammar = compiler(engine).json_schema(json.dumps(SCHEMAS["flat"]))
    brace = engine.tokenizer.encode("}")[0]
    [answer] = run(
        engine,
        [
            request(
                "a",
                PROMPT,
                max_tokens=300,
                temperature=1.5,
                top_k=3,
                min_p=0.2,
                frequency_penalty=2.0,
                logit_bias={brace: -100.0, 200: 100.0},
                grammar=grammar,
            )
        ],
    )
    Draft202012Validator(SCHEMAS["flat"]).validate(json.loads(answer.text))


def test_preemption_keeps_the_place_in_the_grammar(tiny_model_dir: Path):
    # given: room for about one and a half of four requests
    engine = make_engine(tiny_model_dir, kv_blocks=24, speculation="ngram")
    grammar = compiler(engine).json_schema(json.dumps(SCHEMAS["nested"]))

    # when
    answers = run(
        engine,
        [
            request(f"r{n}", PROMPT, max_tokens=140, temperature=1.0, seed=n, grammar=grammar)
            for n in range(4)
        ],
    )

    # then
    assert engine.scheduler.stats.preemptions > 0
    for answer in answers:
        Draft202012Validator(SCHEMAS["nested"]).validate(json.loads(answer.text))


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ('{"type": "foo"}', "foo"),
        ('{"not": {}}', "not"),
        ('{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ('{"$ref": "https://example.com/schema"}', "example.com"),
        ('{"$ref": "#/nowhere"}', "nowhere"),
        ('{"$ref": "#"}', "no text at all"),
        ('{"type": "integer", "minimum": 9, "maximum": 3}', "minimum"),
        ('{"type": "string", "pattern": "(a"}', "unclosed group"),
        ('{"x-guidance": {"lenient": true}, "not": {}}', "not"),
        ("[]", "object"),
        ("{", "line 1"),
        ("[" * 10_000, "nested too deeply"),
        (json.dumps({"const": "x" * GRAMMAR_BYTES_MAX}), str(GRAMMAR_BYTES_MAX)),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_with_the_reason(engines, schema, reason):
    with pytest.raises(GrammarRefused, match=reason):
        compiler(engines["off"]).json_schema(schema)


def test_a_grammar_that_explodes_later_ends_its_request_only(engines):
    # given: thousands of optional keys, too many to follow at once
    engine = engines["off"]
    schema = {"type": "object", "properties": {f"k{n}": True for n in range(2500)}}
    grammar = compiler(engine).json_schema(json.dumps(schema, separators=(",", ":")))
    steered = {engine.tokenizer.encode(char)[0]: 100.0 for char in '{"k2,1'}

    # when
    bad, good = (
        request("bad", PROMPT, max_tokens=40, grammar=grammar, logit_bias=steered),
        request("good", PROMPT, max_tokens=8, ignore_eos=True),
    )
    engine.add(bad)
    engine.add(good)
    ended = {}
    while engine.has_work:
        ended |= {item.request_id: item for item in engine.step() if item.finish_reason}

    # then
    assert ended["good"].finish_reason is FinishReason.LENGTH
    assert ended["bad"].finish_reason is FinishReason.ERROR
    assert isinstance(ended["bad"].failure, GrammarFailed)
    assert engine.pool.usage == 0.0


def test_the_cache_is_bounded_and_returns_what_it_knows(engines):
    compiling = compiler(engines["off"])
    first = compiling.json_schema('{"const": 0}')
    assert compiling.json_schema('{"const": 0}') is first
    for number in range(1, CACHED_GRAMMARS_MAX + 1):
        compiling.json_schema(json.dumps({"const": number}))
    assert len(compiling._compiled) == CACHED_GRAMMARS_MAX
    assert compiling.json_schema('{"const": 0}') is not first


def test_keys_come_in_the_order_of_the_schema(engines):
    engine = engines["off"]
    for order in itertools.permutations(("b", "a", "c")):
        schema = {
            "type": "object",
            "properties": {key: {"const": 1} for key in order},
            "required": list(order),
            "additionalProperties": False,
        }
        grammar = compiler(engine).json_schema(json.dumps(schema))
        [answer] = run(engine, [request("a", PROMPT, max_tokens=60, grammar=grammar)])
        assert list(json.loads(answer.text)) == list(order)


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("date-time", 35),
        ("time", 24),
        ("duration", 32),
        ("date", 10),
        ("uuid", 36),
        ("ipv4", 15),
    ],
)
def test_a_format_is_kept_and_has_an_end(engines, name: str, longest: int):
    # given: a model that writes any digit as gladly as the end of the text
    schema = {"type": "string", "format": name}
    grammar = compiler(engines["off"]).json_schema(json.dumps(schema))

    # when
    answers = run(
        engines["off"],
        [
            request(f"r{seed}", PROMPT, max_tokens=200, temperature=1.0, seed=seed, grammar=grammar)
            for seed in range(8)
        ],
    )

    # then
    checker = Draft202012Validator.FORMAT_CHECKER
    for answer in answers:
        assert answer.finish_reason is FinishReason.STOP
        assert 0 < len(json.loads(answer.text)) <= longest
        Draft202012Validator(schema, format_checker=checker).validate(json.loads(answer.text))


@pytest.mark.parametrize(
    "name", ["int32", "double", "horoscope", "uri-reference", "", 5, None, ["x"]]
)
@pytest.mark.parametrize("wrapped", ["items", "anyOf", "properties", "$defs", "if"])
def test_a_format_that_nobody_knows_is_an_annotation(tiny_model_dir: Path, name, wrapped: str):
    # given
    inner = {"type": "string", "format": name, "maxLength": 3}
    schema = {
        "items": {"type": "array", "items": inner},
        "anyOf": {"anyOf": [inner, {"type": "null"}]},
        "properties": {"type": "object", "properties": {"a": inner}},
        "$defs": {"$ref": "#/$defs/a", "$defs": {"a": inner}},
        "if": {"type": "array", "prefixItems": [inner], "items": False},
    }[wrapped]

    # when
    known = compiler(make_engine(tiny_model_dir)).json_schema(json.dumps(schema))

    # then
    assert not known.is_complete


def test_only_schemas_are_looked_into():
    # given: data and names that read like a format
    schema = {
        "const": {"format": "phone"},
        "enum": [{"format": "phone"}],
        "properties": {"format": {"format": "time", "maxLength": 9}},
        "default": {"format": "date-time"},
        "maxLength": 1_000,
        "format": "date-time",
    }

    # when
    settled = formats.settled(schema)

    # then
    assert settled == {**schema, "maxLength": 35}
    assert schema["maxLength"] == 1_000


def test_a_schema_of_a_thousand_levels_is_refused(tiny_model_dir: Path):
    schema = '{"not":' * 3_000 + "{}" + "}" * 3_000
    with pytest.raises(GrammarRefused, match="nested too deeply"):
        compiler(make_engine(tiny_model_dir)).json_schema(schema)
