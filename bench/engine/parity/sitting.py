"""One call of the parity command: what it runs, where it keeps it, and when it stops."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.engine.parity.matrix import (
    MODES,
    OUTPUT_TOKENS,
    Bed,
    Compared,
    Judge,
    answer_all,
    run_batch,
    store,
    stored,
)
from bench.engine.parity.prompts import COUNT, Batch, dealt, two_hundred
from bench.engine.parity.reference import Answers, Oracle, Tie
from workers.config import EngineConfig
from workers.model import quantisation
from workers.text.tokenizer import Tokenizer

REPORT_EVERY = 20
# Mostly wrong, which the policy learns and then asks them no more: each batch meets a new one.
UNTRAINED = ("medusa", "eagle")

Report = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Sitting:
    """`code` names the engine's sources: results of others are left alone and not used."""

    config: EngineConfig
    folder: Path
    modes: Sequence[str]
    deadline: float
    code: str
    report: Report

    def run(self) -> bool:
        """Compare what is missing; False when the time ran out first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prompts = two_hundred(Tokenizer(self.config.model_dir))
        bed = Bed(self.config, quantisation.load(self.config), folder=self.folder)
        self.report(f"the engine runs {bed.products}, {self.config.threads} threads")
        answers, judge = self._reference(bed)
        return self._fill(answers, prompts) and all(
            self._compare(bed, answers, prompts, mode=mode, tight=tight, judge=judge)
            for mode in self.modes
            for tight in (False, True)
        )

    def results(self) -> list[Compared]:
        kind = self.config.quantisation
        return [i for i in stored(self.folder, code=self.code) if i.quantisation == kind]

    @property
    def _is_over(self) -> bool:
        return time.monotonic() >= self.deadline

    def _reference(self, bed: Bed) -> tuple[Answers, Judge]:
        """fp32 answers to transformers; int8 to itself, one prompt at a time, without drafts."""
        if self.config.quantisation == "none":
            oracle = Oracle(self.config.model_dir)
            path = self.folder / "transformers.jsonl"
            return Answers(path, source=oracle.name, compute=oracle.answer), oracle.ties
        alone = bed.engine("off", tight=False)

        def compute(prompt: list[int], tokens: int) -> list[int]:
            # A tenant without a past: nothing is found in the prefix cache.
            salt = f"alone {time.monotonic_ns()}"
            return answer_all(alone, [prompt], tokens=tokens, salt=salt)[0].tokens

        path = self.folder / f"{self.config.quantisation}-alone.jsonl"
        return Answers(path, source=f"{self.code} {bed.products}", compute=compute), _no_ties

    def _fill(self, answers: Answers, prompts: list[list[int]]) -> bool:
        missing = answers.missing(prompts, OUTPUT_TOKENS)
        started = time.monotonic()
        for number, prompt in enumerate(missing, start=1):
            if self._is_over:
                return False
            answers.get(prompt, OUTPUT_TOKENS)
            if number % REPORT_EVERY == 0:
                left = (time.monotonic() - started) / number * (len(missing) - number)
                self.report(f"reference: {number} of {len(missing)}, about {left:.0f} s to go")
        return True

    def _compare(
        self,
        bed: Bed,
        answers: Answers,
        prompts: list[list[int]],
        *,
        mode: str,
        tight: bool,
        judge: Judge,
    ) -> bool:
        batches = self._missing(mode, tight=tight)
        if not batches:
            return True
        engine = bed.engine(mode, tight=tight)
        for batch in batches:
            if self._is_over:
                return False
            if mode in UNTRAINED:
                engine = bed.engine(mode, tight=tight)
            expected = [answers.get(prompts[number], OUTPUT_TOKENS) for number in batch.prompts]
            facts = run_batch(engine, batch, prompts, expected=expected, judge=judge)
            kind = self.config.quantisation
            item = Compared(code=self.code, quantisation=kind, mode=mode, **facts)
            store(self.folder, item)
            self.report(_progress(item))
        return True

    def _missing(self, mode: str, *, tight: bool) -> list[Batch]:
        done = {item.index for item in self.results() if item.mode == mode}
        batches = dealt(COUNT, seed=MODES.index(mode))
        return [b for b in batches if b.tight is tight and b.index not in done]


def _no_ties(prompt: list[int], answer: list[int]) -> list[Tie]:
    """Integer sums are the same in any company, so no difference is a tie."""
    return []


def _progress(item: Compared) -> str:
    pool = "tight" if item.tight else "roomy"
    return (
        f"{item.mode}: batch {item.index} ({item.size}, {pool}): {item.identical} identical, "
        f"{len(item.ties)} ties, {len(item.different)} different, {item.preemptions} preempted, "
        f"{item.accepted} of {item.drafted} drafts accepted, {item.seconds:.1f} s"
    )
