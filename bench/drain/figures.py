"""The figures of a bench as a CSV file, and their curves as SVG beside it.

`python -m bench.drain.figures FILE.csv`: draws the curves again.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.drain.curves import Panel, svg

Figures = Mapping[str, float]

MILLIONS: Final = 1e-6


@contextmanager
def written(path: Path | None) -> Iterator[Callable[[Figures], None]]:
    """Yields what writes one row, at once: a run that is ended keeps what it has measured."""
    if path is None:
        yield lambda _: None
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        rows: list[csv.DictWriter[str]] = []

        def write(row: Figures) -> None:
            if not rows:
                rows.append(csv.DictWriter(file, list(row), lineterminator="\n"))
                rows[0].writeheader()
            rows[0].writerow({name: round(value, 2) for name, value in row.items()})
            file.flush()

        yield write


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def draw_drain(path: Path) -> None:
    rows = _read(path)
    cpu = {"drain_us": "drain", "postgres_us": "its PostgreSQL", "redis_us": "Redis"}
    panels = (
        _panel(rows, "events per second", {"per_s": "one drain process"}, aim=20_000),
        _panel(rows, "CPU per event, µs", cpu),
        _panel(rows, "memory of the drain, MiB", {"memory_mib": "resident"}),
        _panel(rows, "refresh of the boards after 200,000 events, s", {"refresh_s": "all of them"}),
    )
    _draw(path, panels)


def draw_history(path: Path) -> None:
    rows = _read(path)
    checks = {
        "again_s": "every 30 s",
        "check_s": "of a step's rows",
        "sealed_s": "audit that seals it",
        "audit_s": "the next day's audit",
    }
    refresh = {"rollups_us": "a batch of 4,000 posted by SQL, per event"}
    panels = (
        _panel(rows, "month's overview, ms", {"month_ms": "median of 7"}, aim=150),
        _panel(rows, "the ledger's invariants, s", checks, aim=5),
        _panel(rows, "an event with its rollups, µs", refresh),
    )
    _draw(path, panels)


def _panel(
    rows: Sequence[Figures], title: str, names: Mapping[str, str], aim: float | None = None
) -> Panel:
    across = [row["events"] * MILLIONS for row in rows]
    lines = {label: [row[name] for row in rows] for name, label in names.items()}
    return Panel(title=title, across=across, lines=lines, aim=aim)


def _draw(path: Path, panels: Sequence[Panel]) -> None:
    drawn = svg(panels, across="million events so far")
    path.with_suffix(".svg").write_text(drawn, encoding="utf-8")


def _read(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    given = Path(sys.argv[1])
    (draw_history if "history" in given.stem else draw_drain)(given)
