"""`python -m bench.engine.replay`: what drafts gain on answers that were written once.

The engine's own drafter and policy go over greedy int8 answers to the tuning prompts, step by step,
and what the steps would take is added up from a curve that was measured on a quiet machine. No
model runs, so a change of the drafter shows in seconds what it might give; whether it does, only
the bench can say. "Perfect" drafts the same tokens and knows beforehand how many of them are right.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import mean, median
from typing import Final

from bench.engine.experiments import COPY_TOKENS, ONE_STREAM_TOKENS, THREADS, encode
from bench.engine.prompts import COPY_HEAVY, TUNING
from bench.engine.tables.markdown import table
from workers.config import DEFAULT_MODEL_DIR, EngineConfig
from workers.engine.drafter import Drafter
from workers.engine.engine import Engine
from workers.engine.scheduler import Scheduled
from workers.engine.sequence import GenerationRequest, Sequence, new_sequence
from workers.model.sampler import SamplingParams
from workers.speculation.policy import CostCurve
from workers.speculation.proposers import make_lookup
from workers.text.tokenizer import Tokenizer

ANSWERS_FILE: Final = Path(".tokenhouse/bench/engine/answers.json")
SPECULATIONS: Final = ("ngram", "phrases", "phrases+ngram")
# Milliseconds of an int8 step on two threads of a machine that did nothing else (load 0.02).
STEP_MS: Final = {1: 3.29, 2: 3.45, 3: 3.85, 4: 4.21, 5: 4.42, 6: 4.62, 7: 4.97, 8: 5.16}
LONG_STEP_MS: Final = {12: 6.41, 16: 7.5, 17: 8.07, 24: 10.3, 32: 12.75, 64: 23.35}
PROMPT_TOKEN_MS: Final = 0.37
MODEL_DEPTH: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Token ids of a prompt and of the greedy answer to it."""

    group: str
    prompt: list[int]
    tokens: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Seconds and counts of one answer; `plain_s` without drafts, `prompt_s` for either."""

    group: str
    tokens: int
    steps: int
    drafted: int
    prompt_s: float
    plain_s: float
    drafting_s: float

    @property
    def whole(self) -> float:
        return (self.prompt_s + self.plain_s) / (self.prompt_s + self.drafting_s)

    @property
    def decoding(self) -> float:
        return self.plain_s / self.drafting_s


def replay(
    answers: list[Answer], drafter: Drafter, curve: CostCurve, *, perfect: bool = False
) -> list[Replayed]:
    """All answers one after the other; what is learned of one is known in the next."""
    return [
        _replay_one(str(number), answer, drafter, curve, perfect=perfect)
        for number, answer in enumerate(answers)
    ]


def _replay_one(
    name: str, answer: Answer, drafter: Drafter, curve: CostCurve, *, perfect: bool
) -> Replayed:
    count = len(answer.tokens)
    request = GenerationRequest(request_id=name, prompt=answer.prompt, max_tokens=count)
    sequence = new_sequence(request, arrived_at=0.0)
    sequence.tokens.append(answer.tokens[0])
    steps, drafted, seconds = 1, 0, curve.seconds(1)
    while sequence.output_count < count:
        sequence.num_computed = len(sequence.tokens) - 1
        drafter.assign([Scheduled(sequence, 1)], grow=lambda _, length: length)
        rest = answer.tokens[sequence.output_count :]
        if perfect:
            sequence.draft = _worthwhile(sequence, rest, curve)
        emitted = rest[: _common(sequence.draft, rest) + 1]
        drafter.learn(sequence, emitted)
        sequence.tokens += emitted
        steps += 1
        drafted += len(sequence.draft)
        seconds += curve.seconds(1 + len(sequence.draft))
    # The next answer is another tenant's: none finds an earlier one.
    drafter.end(sequence, remember=False)
    return Replayed(
        group=answer.group,
        tokens=count,
        steps=steps,
        drafted=drafted,
        prompt_s=PROMPT_TOKEN_MS / 1e3 * len(answer.prompt),
        plain_s=count * curve.seconds(1),
        drafting_s=seconds,
    )


def _common(draft: list[int], rest: list[int]) -> int:
    """How many tokens of the draft come; the last of the answer is emitted in any case."""
    pairs = enumerate(zip(draft, rest, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(draft), len(rest)))


def _worthwhile(sequence: Sequence, rest: list[int], curve: CostCurve) -> list[int]:
    """Of the right tokens of a proposal, as many as give the most tokens per second."""
    right = sequence.proposed.tokens[: _common(sequence.proposed.tokens, rest)]
    lengths = range(len(right) + 1)
    return right[: max(lengths, key=lambda length: (length + 1) / curve.seconds(length + 1))]


def stored_or_written(path: Path, config: EngineConfig, tokenizer: Tokenizer) -> list[Answer]:
    """The answers to the present tuning prompts; the engine writes them if they are not there."""
    asked = [(group, encode(tokenizer, prompt)) for group, prompt in _in_turn()]
    if path.is_file():
        kept = [Answer(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
        if [(answer.group, answer.prompt) for answer in kept] == asked:
            return kept
    sys.stdout.write(f"writing {len(asked)} answers into {path}\n")
    engine = Engine.load(config)
    answers = [_write(engine, group, prompt) for group, prompt in asked]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(answer) for answer in answers]), encoding="utf-8")
    return answers


def _in_turn() -> Iterator[tuple[str, str]]:
    """The classes take turns, as they do in the bench."""
    for row in zip_longest(*TUNING.values()):
        yield from ((group, prompt) for group, prompt in zip(TUNING, row, strict=True) if prompt)


def _write(engine: Engine, group: str, prompt: list[int]) -> Answer:
    engine.add(
        GenerationRequest(
            request_id="answer",
            prompt=prompt,
            max_tokens=COPY_TOKENS if group in COPY_HEAVY else ONE_STREAM_TOKENS,
            sampling=SamplingParams(temperature=0.0, logprobs=0),
            ignore_eos=True,
        )
    )
    tokens: list[int] = []
    while engine.has_work:
        for progress in engine.step():
            tokens += [chosen.token for chosen in progress.logprobs]
    return Answer(group=group, prompt=prompt, tokens=tokens)


def rows(speculation: str, drafted: list[Replayed], perfect: list[Replayed]) -> list[list[str]]:
    """Lines of the table: every class, and copying work and the rest together."""
    groups = {group: (group,) for group in TUNING}
    groups["copying work"] = COPY_HEAVY
    groups["other"] = tuple(group for group in TUNING if group not in COPY_HEAVY)
    found: dict[str, list[list[Replayed]]] = defaultdict(list)
    for name, members in groups.items():
        for side in (drafted, perfect):
            found[name].append([one for one in side if one.group in members])
    return [
        [
            speculation,
            name,
            f"{sum(one.tokens for one in own) / sum(one.steps for one in own):.2f}",
            f"{median(one.whole for one in own):.2f} ({mean(one.whole for one in own):.2f})",
            f"{median(one.decoding for one in own):.2f}",
            f"{median(one.whole for one in best):.2f}",
        ]
        for name, (own, best) in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.replay", description=__doc__)
    parser.add_argument("--speculations", default=",".join(SPECULATIONS), help="with commas")
    options = parser.parse_args()
    tokenizer = Tokenizer(DEFAULT_MODEL_DIR)
    writing = EngineConfig(quantisation="int8", threads=THREADS)
    answers = stored_or_written(ANSWERS_FILE, writing, tokenizer)
    points = {**STEP_MS, **LONG_STEP_MS}
    curve = CostCurve([(tokens, ms / 1e3) for tokens, ms in points.items()])
    lines: list[list[str]] = []
    for speculation in options.speculations.split(","):
        config = EngineConfig(speculation=speculation)
        sides = []
        for perfect in (False, True):
            lookups = {name: make_lookup(name, config, tokenizer) for name in config.proposers}
            drafter = Drafter(
                lookups, curve=curve, max_length=config.max_draft_tokens, model_depth=MODEL_DEPTH
            )
            sides.append(replay(answers, drafter, curve, perfect=perfect))
        lines += rows(speculation, *sides)
    header = ["drafts", "class", "tokens per step", "against off: median (mean)", "decoding alone"]
    sys.stdout.write(table([*header, "perfect"], lines) + "\n")


if __name__ == "__main__":
    main()
