"""Runs batches of prompts through the engine and compares every answer, token by token."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.engine.parity.drafts import DRAFT_DEPTH, settings_for
from bench.engine.parity.prompts import Batch
from bench.engine.parity.reference import Tie
from bench.engine.wire import Settings
from workers.config import EngineConfig, Quantisation
from workers.engine.engine import Engine
from workers.engine.sequence import GenerationRequest
from workers.model.decoder import Model
from workers.model.sampler import SamplingParams
from workers.speculation.policy import CostCurve
from workers.text.tokenizer import Tokenizer

MODES: Final = (
    "off",
    "ngram",
    "suffix",
    "draft_model",
    "self_draft",
    "medusa",
    "eagle",
    "phrases",
)
OUTPUT_TOKENS: Final = 24
# With room, prompts come in one or two chunks; without, in many, and requests preempt each other.
ROOMY: Final[Settings] = {"kv_blocks": 640, "token_budget": 256, "max_running_requests": 32}
TIGHT: Final[Settings] = {"kv_blocks": 22, "token_budget": 48, "max_running_requests": 32}
# Every step costs the same, so every draft is sent: what pays is not the question here.
FREE_DRAFTS: Final = CostCurve([(1, 60.0), (4096, 60.0)])
RESULTS_FILE: Final = "batches.jsonl"

Judge = Callable[[list[int], list[int]], list[Tie]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One batch: how many answers were the reference's, and every one that was not."""

    code: str
    quantisation: Quantisation
    mode: str
    index: int
    size: int
    tight: bool
    identical: int
    ties: list[dict[str, Any]] = field(default_factory=list)
    different: list[dict[str, Any]] = field(default_factory=list)
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0


def stored(folder: Path, *, code: str) -> list[Compared]:
    """The batches of a folder that ran on this code."""
    path = folder / RESULTS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [item for item in (Compared(**json.loads(line)) for line in lines) if item.code == code]


def store(folder: Path, item: Compared) -> None:
    with (folder / RESULTS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(item)) + "\n")


@dataclass(slots=True, kw_only=True)
class Answer:
    tokens: list[int] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    cached: int = 0


class Bed:
    """Engines over one model: a mode's roomy and tight one at a time."""

    def __init__(self, config: EngineConfig, model: Model, *, folder: Path) -> None:
        self._config = config
        self._model = model
        self._folder = folder
        self._tokenizer = Tokenizer(config.model_dir)
        self.products = model.linear_kind

    def engine(self, mode: str, *, tight: bool) -> Engine:
        config = self._config
        limits = TIGHT if tight else ROOMY
        drafts = settings_for(mode, config.model_dir, self._folder)
        settings = EngineConfig(
            model_dir=config.model_dir,
            quantisation=config.quantisation,
            threads=config.threads,
            speculation=mode,
            draft_depth=DRAFT_DEPTH,
            max_draft_tokens=2 * DRAFT_DEPTH,
            **limits,
            **drafts,
        )
        return Engine(settings, self._model, self._tokenizer, draft_curve=FREE_DRAFTS)


def answer_all(
    engine: Engine, prompts: Sequence[list[int]], *, tokens: int, salt: str
) -> list[Answer]:
    """Greedy answers of exactly `tokens` tokens to prompts sent at once, by one tenant."""
    answers = {str(number): Answer() for number in range(len(prompts))}
    for name, prompt in zip(answers, prompts, strict=True):
        engine.add(_request(name, prompt, tokens, salt))
    while engine.has_work:
        for progress in engine.step():
            answer = answers[progress.request_id]
            answer.tokens += [entry.token for entry in progress.logprobs]
            if progress.usage is not None:
                answer.drafted = progress.usage.drafted
                answer.accepted = progress.usage.accepted
                answer.cached = progress.usage.cached_tokens
    engine.pool.check_integrity([])
    return list(answers.values())


def compare(
    answers: Sequence[Answer],
    batch: Batch,
    prompts: Sequence[list[int]],
    *,
    expected: Sequence[list[int]],
    judge: Judge,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every answer as `identical`, `tie` or `different`, with what tells it from the expected."""
    for number, answer, right in zip(batch.prompts, answers, expected, strict=True):
        if answer.tokens == right:
            yield "identical", {}
            continue
        ties = judge(prompts[number], answer.tokens)
        whole = len(answer.tokens) == len(right) and bool(ties)
        kind = "tie" if whole and all(tie.is_rounding for tie in ties) else "different"
        yield kind, {"prompt": number, "tokens": [asdict(tie) for tie in ties]}


def run_batch(
    engine: Engine,
    batch: Batch,
    prompts: Sequence[list[int]],
    *,
    expected: Sequence[list[int]],
    judge: Judge,
) -> dict[str, Any]:
    """Fields of `Compared` that come from running the batch."""
    started = time.monotonic()
    preempted = engine.scheduler.stats.preemptions
    chosen = [prompts[number] for number in batch.prompts]
    answers = answer_all(engine, chosen, tokens=len(expected[0]), salt="one tenant")
    found = list(compare(answers, batch, prompts, expected=expected, judge=judge))
    return {
        "index": batch.index,
        "size": len(batch.prompts),
        "tight": batch.tight,
        "identical": sum(kind == "identical" for kind, _ in found),
        "ties": [facts for kind, facts in found if kind == "tie"],
        "different": [facts for kind, facts in found if kind == "different"],
        "preemptions": engine.scheduler.stats.preemptions - preempted,
        "drafted": sum(answer.drafted for answer in answers),
        "accepted": sum(answer.accepted for answer in answers),
        "cached_tokens": sum(answer.cached for answer in answers),
        "seconds": round(time.monotonic() - started, 2),
    }


def _request(name: str, prompt: list[int], tokens: int, salt: str) -> GenerationRequest:
    return GenerationRequest(
        request_id=name,
        prompt=prompt,
        max_tokens=tokens,
        # Log probabilities name every token of the answer.
        sampling=SamplingParams(temperature=0.0, logprobs=0),
        ignore_eos=True,
        salt=salt,
    )
