"""What was asked, in words: a line for each kind of address, then each that takes too long."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import median, quantiles

from bench.pages.asking import Cost

Kinds = Mapping[str, Sequence[Cost]]


def head(limit_ms: float) -> str:
    """Two criteria: the wall time, and what remains of it on a machine that does other work."""
    return f"{'ms':32}{'asked':>6} {'median':>7} {'p95':>7} {'worst':>7}   over {limit_ms:.0f} ms"


def line(kind: str, costs: Sequence[Cost], *, limit_ms: float) -> str:
    walls = sorted(cost.wall_ms for cost in costs)
    p95 = quantiles(walls, n=20)[-1] if len(walls) > 1 else walls[0]
    over = sum(cost.wall_ms > limit_ms for cost in costs)
    busy = sum(cost.both_ms > limit_ms for cost in costs)
    return (
        f"{kind:32}{len(costs):6} {median(walls):7.0f} {p95:7.0f} {walls[-1]:7.0f}"
        f"   {over} by wall time, {busy} by CPU time"
    )


def worst(kinds: Kinds, *, over_ms: float) -> Iterator[str]:
    slow = [c for costs in kinds.values() for c in costs if max(c.wall_ms, c.both_ms) > over_ms]
    if slow:
        yield (
            f"{'wall':>7} {'CPU':>6} {'+ PG':>6} {'SQL':>6} {'first':>6} {'asks':>4} {'kB':>7}  ms,"
            f" of those over {over_ms:.0f}"
        )
    for cost in sorted(slow, key=lambda c: -c.both_ms):
        yield (
            f"{cost.wall_ms:7.0f} {cost.cpu_ms:6.0f} {cost.postgres_ms:6.0f} {cost.sql_ms:6.0f}"
            f" {cost.first_ms:6.0f} {cost.statements:4} {cost.size_kb:7.1f}  {cost.address}"
        )


def failed(kinds: Kinds) -> Iterator[str]:
    for costs in kinds.values():
        yield from (f"{c.status} {c.address}" for c in costs if c.status >= 500)


def keep(path: Path, kinds: Kinds) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["kind", *(field.name for field in fields(Cost))])
        rows.writerows([kind, *_plain(cost)] for kind, costs in kinds.items() for cost in costs)


def _plain(cost: Cost) -> Iterable[object]:
    return (round(v, 2) if isinstance(v, float) else v for v in asdict(cost).values())
