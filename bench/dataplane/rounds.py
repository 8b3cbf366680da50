"""Measures subjects in interleaved pairs, so that a noisy minute of the host falls on both.

A figure is a median over rounds with its least and greatest value beside it.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.dataplane import cpu, load
from bench.dataplane.bed import BenchFailed
from bench.dataplane.shapes import EVENTS_PER_STREAM, Count, Shape

# After a run a subject still settles the requests that the generator hung up on.
AFTERMATH_S: Final = 0.3
WARM_UP_S: Final = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that proxies to the upstream, and the process tree whose CPU time counts."""

    name: str
    port: int
    pid: int
    api_key: str = "none"
    redis_pid: int | None = None  # where it meters
    connections_max: int = 1024  # loads with more would only show how it breaks down


@dataclass(frozen=True, slots=True)
class Run:
    """One subject under one load in one round."""

    subject: str
    shape: Shape
    round: int
    count: Count
    cpu: cpu.CpuTime
    wall_s: float
    redis_s: float = 0.0
    core_busy_s: float = 0.0  # the subject's core, with everything that ran on it

    @property
    def us_per_request(self) -> float:
        return self.cpu.total_s * 1e6 / self.count.requests

    @property
    def us_per_event(self) -> float:
        return self.us_per_request / EVENTS_PER_STREAM

    @property
    def system_share(self) -> float:
        return self.cpu.system_s / self.cpu.total_s if self.cpu.total_s else 0.0

    @property
    def core_share(self) -> float:
        """How much of one core the subject used; near 1 it was itself the limit."""
        return self.cpu.total_s / self.wall_s

    @property
    def others_share(self) -> float:
        """How much of the subject's core others used: what makes a measurement noisy."""
        return max(self.core_busy_s - self.cpu.total_s, 0.0) / self.wall_s

    @property
    def per_second(self) -> float:
        return self.count.requests / self.count.seconds


@dataclass(frozen=True, slots=True)
class Figure:
    median: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    seconds: int
    subject_core: int | None
    load_core: int | None
    folder: Path


def figure(values: Iterable[float]) -> Figure:
    given = list(values)
    return Figure(statistics.median(given), min(given), max(given))


def measure(
    subjects: Sequence[Subject],
    shapes: Sequence[Shape],
    plan: Plan,
    *,
    progress: Callable[[str], None],
) -> list[Run]:
    """All shapes, each for `plan.rounds` rounds of every subject; the order turns each round.

    Round 0 is the warm-up.
    """
    runs = []
    for shape in shapes:
        able = [subject for subject in subjects if shape.connections <= subject.connections_max]
        for subject in able:
            runs.append(_run(subject, shape, plan, number=0, seconds=WARM_UP_S))
        for number in range(1, plan.rounds + 1):
            order = able if number % 2 else list(reversed(able))
            for subject in order:
                run = _run(subject, shape, plan, number=number, seconds=plan.seconds)
                progress(
                    f"{shape.name} round {number} {subject.name}: "
                    f"{run.us_per_request:.0f} us/request, {run.per_second:.0f}/s, "
                    f"core {run.core_share:.0%}"
                )
                runs.append(run)
    return runs


def _run(subject: Subject, shape: Shape, plan: Plan, *, number: int, seconds: int) -> Run:
    pids = cpu.tree_of(subject.pid)
    beside = [] if subject.redis_pid is None else [subject.redis_pid]
    before, began = cpu.cpu_of(pids), time.perf_counter()
    redis_before, core = cpu.cpu_of(beside), plan.subject_core
    busy_before = 0.0 if core is None else cpu.busy_s(core)
    count = load.run(
        shape,
        port=subject.port,
        api_key=subject.api_key,
        seconds=seconds,
        core=plan.load_core,
        folder=plan.folder,
    )
    time.sleep(AFTERMATH_S)
    used = cpu.cpu_of(pids) - before
    if count.errors or not (count.requests or number == 0):
        raise BenchFailed(f"{subject.name}, {shape.name}: {count.errors} errors, {count}")
    wall_s = time.perf_counter() - began
    return Run(
        subject=subject.name,
        shape=shape,
        round=number,
        count=count,
        cpu=used,
        wall_s=wall_s,
        redis_s=(cpu.cpu_of(beside) - redis_before).total_s,
        core_busy_s=0.0 if core is None else cpu.busy_s(core) - busy_before,
    )
