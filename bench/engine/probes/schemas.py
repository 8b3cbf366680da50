"""What answers under a JSON schema cost, and whether they are valid, with drafts and without.

Forty held-out prompts, one of four schemas each, one stream, greedy. Beside each answer the same
engine writes as many tokens freely, so a ratio compares equal work on the same prompt.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from jsonschema import Draft202012Validator

from bench.engine.experiments import pick
from bench.engine.statistics import median_interval
from bench.engine.wire import Settings
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.sequence import FinishReason, GenerationRequest
from workers.model import quantisation
from workers.model.sampler import SamplingParams
from workers.text.structured import Grammar, GrammarCompiler
from workers.text.tokenizer import Tokenizer

ANSWERS: Final = 40
TOKENS_MAX: Final = 256
SPECULATION: Final = ("off", "ngram")


def _text(length: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": length}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: Final = (
    _object(title=_text(40), points={"type": "array", "items": _text(50), "maxItems": 3}),
    _object(name=_text(30), year={"type": "integer", "minimum": 0, "maximum": 2100}),
    _object(kind={"enum": ["question", "task", "chat"]}, urgent={"type": "boolean"}),
    _object(
        people={
            "type": "array",
            "items": _object(name=_text(24), role={"enum": ["reader", "writer"]}),
            "minItems": 1,
            "maxItems": 2,
        },
        summary=_text(80),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemas:
    """By speculation: valid answers, those cut by the limit, tokens per second of both kinds.

    `ratio`: speed under a schema over speed without, the median over prompts with its interval.
    """

    answers: int
    tokens_mean: float
    same_texts: int
    valid: dict[str, int]
    cut: dict[str, int]
    schema_tps: dict[str, float]
    free_tps: dict[str, float]
    tokens_per_step: dict[str, float]
    ratio: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    tokens: int
    steps: int
    seconds: float
    ended: bool

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class _Pair:
    schema: dict[str, Any]
    under: _Answer
    free: _Answer

    @property
    def is_valid(self) -> bool:
        if not self.under.ended:
            return False
        return Draft202012Validator(self.schema).is_valid(json.loads(self.under.text))


def measure(settings: Settings) -> Schemas:
    config = EngineConfig(**settings)
    model, tokenizer = quantisation.load(config), Tokenizer(config.model_dir)
    engines = {
        kind: Engine(replace(config, speculation=kind), model, tokenizer) for kind in SPECULATION
    }
    grammars = _compiled(engines["off"])
    pairs: dict[str, list[_Pair]] = {kind: [] for kind in engines}
    for index, prompt in enumerate(pick(tokenizer, first=0, count=ANSWERS)):
        number = index % len(SCHEMAS)
        for kind, engine in engines.items():
            under = _answer(engine, prompt, tokens=TOKENS_MAX, grammar=grammars[number])
            free = _answer(engine, prompt, tokens=under.tokens)
            pairs[kind].append(_Pair(SCHEMAS[number], under, free))
    return _result(pairs)


def _result(pairs: dict[str, list[_Pair]]) -> Schemas:
    plain, drafted = (pairs[kind] for kind in SPECULATION)
    same = zip(plain, drafted, strict=True)
    return Schemas(
        answers=len(plain),
        tokens_mean=sum(pair.under.tokens for pair in plain) / len(plain),
        same_texts=sum(one.under.text == other.under.text for one, other in same),
        valid={kind: sum(pair.is_valid for pair in own) for kind, own in pairs.items()},
        cut={kind: sum(not pair.under.ended for pair in own) for kind, own in pairs.items()},
        schema_tps={kind: _speed([pair.under for pair in own]) for kind, own in pairs.items()},
        free_tps={kind: _speed([pair.free for pair in own]) for kind, own in pairs.items()},
        tokens_per_step={
            kind: sum(p.under.tokens for p in own) / sum(p.under.steps for p in own)
            for kind, own in pairs.items()
        },
        ratio={
            kind: asdict(median_interval([pair.under.speed / pair.free.speed for pair in own]))
            for kind, own in pairs.items()
        },
    )


def _speed(answers: Sequence[_Answer]) -> float:
    return sum(answer.tokens for answer in answers) / sum(answer.seconds for answer in answers)


def _compiled(engine: Engine) -> list[Grammar]:
    """Compiled ahead: a schema is compiled once and kept."""
    sizes = engine.model.config
    compiler = GrammarCompiler(
        engine.tokenizer.to_json(), vocab_size=sizes.vocab_size, eos=sizes.eos_token_ids
    )
    return [compiler.json_schema(json.dumps(schema)) for schema in SCHEMAS]


def _answer(
    engine: Engine, prompt: list[int], *, tokens: int, grammar: Grammar | None = None
) -> _Answer:
    """One greedy answer; without a grammar, of exactly `tokens` tokens."""
    engine.add(
        GenerationRequest(
            request_id="one",
            prompt=prompt,
            max_tokens=tokens,
            sampling=SamplingParams(temperature=0.0),
            ignore_eos=grammar is None,
            grammar=grammar,
            salt=str(time.monotonic_ns()),
        )
    )
    text, started = "", time.perf_counter()
    while True:
        for progress in engine.step():
            text += progress.text
            if progress.usage is not None:
                seconds = time.perf_counter() - started
                ended = progress.finish_reason is FinishReason.STOP
                usage = progress.usage
                return _Answer(text, usage.completion_tokens, usage.steps, seconds, ended)
