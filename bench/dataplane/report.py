"""Turns runs into the tables of docs/performance.md, between two markers; only measured values."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench.dataplane.rounds import Run, Subject, figure
from bench.dataplane.shapes import EVENTS_PER_STREAM, SHAPES, Shape

PAGE: Final = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN: Final = "<!-- bench.dataplane: begin (written by `python -m bench.dataplane`) -->"
END: Final = "<!-- bench.dataplane: end -->"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a reader must know to judge the figures."""

    day: date
    rounds: int
    seconds: int
    generator: str
    mock: str
    cores_apart: bool
    direct_per_second: float
    metered_requests: int
    usage_events: int
    redis_us_per_request: float
    resident_mb: tuple[tuple[str, float], ...]


QUIET_SHARE: Final = 0.05


def render(runs: Sequence[Run], subjects: Sequence[Subject], setting: Setting) -> str:
    lines = [*_introduction(setting), *_noise(runs), ""]
    lines += _cost_table(runs, subjects)
    lines += ["", *_speed_table(runs, subjects), "", *_aside(setting)]
    return "\n".join(lines) + "\n"


def write(text: str, page: Path = PAGE) -> None:
    """Replaces what stands between the markers, and nothing else."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} has lost its markers")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def _introduction(setting: Setting) -> list[str]:
    where = "a core of its own" if setting.cores_apart else "the only core, shared with the load"
    return [
        f"Measured {setting.day.isoformat()} on {_cpu_model()}, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, granian {version('granian')}; "
        f"each subject on {where}; load from {setting.generator}, upstream in {setting.mock} "
        f"(answers {setting.direct_per_second:,.0f} requests per second directly). "
        f"{setting.rounds} interleaved rounds of {setting.seconds} s; median (least to greatest).",
    ]


def _noise(runs: Sequence[Run]) -> list[str]:
    share = figure(run.others_share for run in runs).median
    if share <= QUIET_SHARE:
        return []
    return [
        "",
        f"**The machine was not quiet**: other processes used {share:.0%} of the subjects' core, "
        "which makes every figure greater than it would be alone.",
    ]


def _cost_table(runs: Sequence[Run], subjects: Sequence[Subject]) -> list[str]:
    head = " | ".join(subject.name for subject in subjects)
    ratio = len(subjects) > 1
    against = f" {subjects[0].name} to {subjects[1].name} |" if ratio else ""
    lines = [
        f"| CPU time (user + system) | {head} |{against}",
        "|---|" + "---:|" * (len(subjects) + ratio),
    ]
    for shape in _shapes_of(runs):
        cells = [
            _micro([_cost(run) for run in _select(runs, subject.name, shape)])
            for subject in subjects
        ]
        if ratio:
            cells.append(_ratio(runs, subjects, shape))
        lines.append(f"| {_title(shape)} | {' | '.join(cells)} |")
    return lines


def _speed_table(runs: Sequence[Run], subjects: Sequence[Subject]) -> list[str]:
    lines = [
        "| load | subject | per second | p50 ms | p99 ms | core used | in the kernel |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for shape in _shapes_of(runs):
        for subject in subjects:
            chosen = _select(runs, subject.name, shape)
            if not chosen:
                continue
            cells = [
                f"{figure(run.per_second for run in chosen).median:,.0f}",
                f"{figure(run.count.p50_us for run in chosen).median / 1000:.2f}",
                f"{figure(run.count.p99_us for run in chosen).median / 1000:.2f}",
                f"{figure(run.core_share for run in chosen).median:.0%}",
                f"{figure(run.system_share for run in chosen).median:.0%}",
            ]
            lines.append(f"| {shape.title} | {subject.name} | {' | '.join(cells)} |")
    return lines


def _aside(setting: Setting) -> list[str]:
    memory = ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in setting.resident_mb)
    return [
        f"Resident memory per process at the end: {memory}. Redis' own CPU time, on the other "
        f"core: {setting.redis_us_per_request:.0f} µs per request.",
        "",
        f"Metering was on: {setting.metered_requests:,} answers were counted by the load generator "
        f"and {setting.usage_events:,} usage events stood in Redis afterwards (the surplus are the "
        "requests that the generator hung up on when its time was over).",
    ]


def _shapes_of(runs: Sequence[Run]) -> list[Shape]:
    return [shape for shape in SHAPES if any(run.shape == shape for run in runs)]


def _select(runs: Sequence[Run], subject: str, shape: Shape) -> list[Run]:
    chosen = [run for run in runs if run.subject == subject and run.shape == shape]
    return sorted(chosen, key=lambda run: run.round)


def _cost(run: Run) -> float:
    return run.us_per_event if run.shape.streamed else run.us_per_request


def _title(shape: Shape) -> str:
    unit = f"per event of {EVENTS_PER_STREAM}" if shape.streamed else "per request"
    return f"µs {unit}, {shape.title}"


def _micro(costs: Sequence[float]) -> str:
    if not costs:
        return "–"
    given = figure(costs)
    return f"{given.median:.1f} ({given.least:.1f} to {given.greatest:.1f})"


def _ratio(runs: Sequence[Run], subjects: Sequence[Subject], shape: Shape) -> str:
    first, second = (_select(runs, subject.name, shape) for subject in subjects[:2])
    ratios = figure(_cost(a) / _cost(b) for a, b in zip(first, second, strict=True))
    return f"{ratios.median:.1f}x ({ratios.least:.1f} to {ratios.greatest:.1f})"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
