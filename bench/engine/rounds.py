"""Interleaved rounds, kept line by line so that a measurement can be stopped and resumed.

In a round every side answers the same task, in an order that changes with the round: whatever
happens to the machine meanwhile happens to all of them. A round counts when all sides have
answered; a line is one round. Rounds of other code than the present are left alone and not used.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.engine.experiments import Experiment, Task
from bench.engine.side import RunningSide, Side, running
from bench.engine.wire import Job
from workers.identity import code_digest
from workers.text.tokenizer import Tokenizer

ROUNDS_FILE: Final = "rounds.jsonl"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one side made of a round's task. `seconds` stand for the whole task."""

    seconds: float
    output_tokens: int
    steps: int
    drafted: int
    accepted: int
    text_hash: str
    first_seconds: float | None = None

    @property
    def decode_seconds(self) -> float | None:
        """From the first token to the last, if the side told when the first one came."""
        return None if self.first_seconds is None else self.seconds - self.first_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    experiment: str
    code: str
    index: int
    group: str
    load: float
    measured: dict[str, Measured]
    facts: dict[str, dict[str, str]]


def code_hash(sides: tuple[Side, ...]) -> str:
    """Names the engine and the settings of the sides: other code, other figures."""
    digest = hashlib.blake2b(code_digest().encode(), digest_size=6)
    digest.update(json.dumps([asdict(side) for side in sides], default=str).encode())
    return digest.hexdigest()


def stored(folder: Path) -> list[Round]:
    """All complete rounds of a folder; a line that was cut by an interruption is skipped."""
    path = folder / ROUNDS_FILE
    if not path.is_file():
        return []
    rounds = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue
        measured = {name: Measured(**value) for name, value in fields.pop("measured").items()}
        rounds.append(Round(measured=measured, **fields))
    return rounds


class Recorder:
    """Runs the rounds of experiments that are not there yet, until the time is up."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, *, deadline: float, report: Report
    ) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._deadline = deadline
        self._report = report
        folder.mkdir(parents=True, exist_ok=True)

    def record(self, experiment: Experiment, *, rounds: int) -> bool:
        """Bring the experiment to `rounds` rounds; False when the time ran out first."""
        code = code_hash(experiment.sides)
        done = {
            item.index
            for item in stored(self._folder)
            if item.experiment == experiment.key and item.code == code
        }
        missing = [index for index in range(rounds) if index not in done]
        if not missing:
            self._report(f"{experiment.key}: all {rounds} rounds are there")
            return True
        tasks = experiment.tasks(self._tokenizer)
        with ExitStack() as stack:
            sides = [self._start(stack, side) for side in experiment.sides]
            self._warm_up(sides, tasks[0])
            for position, index in enumerate(missing, start=1):
                started = time.monotonic()
                if started >= self._deadline:
                    return False
                task = tasks[index % len(tasks)]
                self._store(self._round(experiment, code, index, task, sides))
                seconds = time.monotonic() - started
                left = (len(missing) - position) * seconds / 60
                self._report(
                    f"{experiment.key}: round {index + 1} of {rounds} ({task.group}) in "
                    f"{seconds:.1f} s, about {left:.1f} min to go"
                )
        return True

    def _start(self, stack: ExitStack, side: Side) -> RunningSide:
        started = stack.enter_context(running(side))
        facts = ", ".join(f"{name} {value}" for name, value in started.facts.items())
        self._report(f"  started {side.name}: {facts}")
        return started

    def _warm_up(self, sides: list[RunningSide], task: Task) -> None:
        for side in sides:
            side.run(_job(side, task, salt=f"warm-up-{time.monotonic_ns()}"))

    def _round(
        self,
        experiment: Experiment,
        code: str,
        index: int,
        task: Task,
        sides: list[RunningSide],
    ) -> Round:
        measured = {
            side.side.name: _measure(side, task, salt=f"{index}-{time.monotonic_ns()}")
            for side in _turn(sides, index)
        }
        return Round(
            experiment=experiment.key,
            code=code,
            index=index,
            group=task.group,
            load=round(os.getloadavg()[0], 2),
            measured=measured,
            facts={side.side.name: side.facts for side in sides},
        )

    def _store(self, item: Round) -> None:
        with (self._folder / ROUNDS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(item)) + "\n")


def _turn(sides: list[RunningSide], index: int) -> Iterator[RunningSide]:
    """All sides, starting with another one each round, forwards and backwards in turn."""
    first = index % len(sides)
    order = sides[first:] + sides[:first]
    return iter(order if index // len(sides) % 2 == 0 else order[::-1])


def _job(side: RunningSide, task: Task, *, salt: str) -> Job:
    count = max(1, round(len(task.prompts) * side.side.share))
    return Job(
        prompts=task.prompts[:count],
        output_tokens=task.output_tokens,
        salt=salt,
        shared_salt=task.shared_salt,
    )


def _measure(side: RunningSide, task: Task, *, salt: str) -> Measured:
    job = _job(side, task, salt=salt)
    outcome = side.run(job)
    expected = len(job.prompts) * job.output_tokens
    if outcome.output_tokens != expected:
        raise ValueError(f"{side.side.name} gave {outcome.output_tokens} of {expected} tokens")
    scale = len(task.prompts) / len(job.prompts)
    texts: Any = outcome.texts
    return Measured(
        seconds=outcome.seconds * scale,
        output_tokens=round(outcome.output_tokens * scale),
        steps=outcome.steps,
        drafted=outcome.drafted,
        accepted=outcome.accepted,
        first_seconds=outcome.first_seconds if scale == 1 else None,
        text_hash=hashlib.blake2b(json.dumps(texts).encode(), digest_size=6).hexdigest(),
    )
