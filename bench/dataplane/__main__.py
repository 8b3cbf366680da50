"""`python -m bench.dataplane`: what one request costs the data plane in CPU time, beside nginx.

Starts everything it needs in a throw-away folder, measures interleaved rounds, prints the tables
and, with --write, puts them into docs/performance.md. The defaults take less than two minutes.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.dataplane import cpu, installation, load, nginx, preflight, report, rounds
from bench.dataplane.bed import Bed, BenchFailed, start_mock
from bench.dataplane.installation import Installation
from bench.dataplane.rounds import Plan, Run, Subject
from bench.dataplane.shapes import SHAPES, Shape

DIRECT_S = 2


def main() -> None:
    given = _arguments()
    shapes = [shape for shape in SHAPES if shape.name in given.shape]
    folder = Path(tempfile.mkdtemp(prefix="tokenhouse-bench-"))
    folder.chmod(0o711)  # the services' own OS user must be able to enter
    try:
        with Bed(folder) as bed:
            plan = Plan(given.rounds, given.seconds, bed.subject_core, bed.other_core, folder)
            text = _bench(bed, shapes, plan, with_django=given.django)
    finally:
        if given.keep:
            _say(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(f"\n{text}")
    if given.write:
        report.write(text)


def _bench(bed: Bed, shapes: list[Shape], plan: Plan, *, with_django: bool) -> str:
    upstream_port, mock = start_mock(bed)
    gateway = installation.start(bed, upstream_port=upstream_port)
    subjects = _subjects(bed, gateway, upstream_port, with_django=with_django)
    for shape in shapes:
        for subject in subjects:
            if shape.connections > subject.connections_max:
                continue
            preflight.check(
                shape,
                port=subject.port,
                api_key=subject.api_key,
                is_metered=subject.redis_pid is not None,
            )
    direct = load.run(
        SHAPES[0],
        port=upstream_port,
        api_key="none",
        seconds=DIRECT_S,
        core=bed.other_core,
        folder=bed.folder,
    )
    events_before = gateway.usage_events()
    runs = rounds.measure(subjects, shapes, plan, progress=_say)
    setting = report.Setting(
        day=datetime.now(UTC).date(),
        rounds=plan.rounds,
        seconds=plan.seconds,
        generator=load.generator(),
        mock=mock,
        cores_apart=bed.subject_core is not None,
        direct_per_second=direct.requests / direct.seconds,
        metered_requests=_metered(runs, subjects[0]),
        usage_events=gateway.usage_events() - events_before,
        redis_us_per_request=_redis_cost(runs, subjects[0]),
        resident_mb=_memory(gateway),
    )
    if setting.usage_events < setting.metered_requests:
        raise BenchFailed(
            f"{setting.metered_requests} answers but {setting.usage_events} usage events"
        )
    timed = [run for run in runs if run.round > 0]
    return report.render(timed, subjects, setting)


def _subjects(
    bed: Bed, gateway: Installation, upstream_port: int, *, with_django: bool
) -> list[Subject]:
    """The data plane first, then nginx where it is installed, then a Django view if asked for."""
    found = [Subject("Tokenhouse", gateway.port, gateway.pid, gateway.api_key, gateway.redis_pid)]
    floor = nginx.start(bed, upstream_port=upstream_port, is_root=os.geteuid() == 0)
    if floor is None:
        _say("nginx is not installed: measuring without it")
    else:
        found.append(Subject("nginx proxy_pass", pid=floor[0], port=floor[1]))
    if with_django:
        pid, port = installation.start_django_view(bed, gateway, upstream_port=upstream_port)
        found.append(Subject("Django view, forwarding only", port, pid, connections_max=32))
    return found


def _metered(runs: list[Run], subject: Subject) -> int:
    return sum(run.count.requests for run in runs if run.subject == subject.name)


def _redis_cost(runs: list[Run], subject: Subject) -> float:
    chosen = [run for run in runs if run.subject == subject.name and not run.shape.streamed]
    costs = [run.redis_s * 1e6 / run.count.requests for run in chosen if run.round > 0]
    return statistics.median(costs) if costs else 0.0


def _memory(gateway: Installation) -> tuple[tuple[str, float], ...]:
    supervisor, *workers = cpu.tree_of(gateway.pid)
    named = [("data plane", pid) for pid in workers]
    named += [("its granian supervisor", supervisor), ("Redis", gateway.redis_pid)]
    return tuple((name, cpu.resident_mb(pid)) for name, pid in named)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dataplane", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 21), metavar="1..20")
    parser.add_argument("--seconds", type=int, default=2, choices=range(1, 31), metavar="1..30")
    names = [shape.name for shape in SHAPES]
    parser.add_argument("--shape", action="append", choices=names, help="default: all")
    parser.add_argument("--django", action="store_true", help="also a Django view that forwards")
    parser.add_argument("--write", action="store_true", help="put the tables into the docs")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    given = parser.parse_args()
    given.shape = given.shape or names
    return given


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
