"""What is counted or timed inside our own engine: no peer beside it, no pairs.

Each fact is measured once for each version of the code and kept beside the rounds.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.engine import sparse
from bench.engine.experiments import ours
from bench.engine.probes import costs, crowds, drafts, gaps, held, schemas
from bench.engine.rounds import Report, code_hash
from bench.engine.side import Side
from bench.engine.wire import Settings

FACTS_FILE: Final = "facts.jsonl"

Probe = Callable[[Settings], Any]

PROBES: Final[dict[str, tuple[Probe, Side]]] = {
    "held": (held.measure, ours("int8")),
    "gaps fp32": (gaps.measure, ours("fp32")),
    "gaps int8": (gaps.measure, ours("int8")),
    "costs fp32": (costs.measure, ours("fp32")),
    "costs int8": (costs.measure, ours("int8")),
    "drafts fp32": (drafts.measure, ours("fp32")),
    "drafts int8": (drafts.measure, ours("int8")),
    "crowds fp32": (crowds.measure, ours("fp32")),
    "crowds int8": (crowds.measure, ours("int8")),
    "schemas int8": (schemas.measure, ours("int8")),
    "sparse": (sparse.measure, ours("fp32")),
}


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """The newest result of every probe, by name."""
    path = folder / FACTS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {fact["probe"]: fact for fact in map(json.loads, lines)}


def measure_missing(folder: Path, *, deadline: float, report: Report) -> None:
    """Run the probes that have no result of the present code, while time is left."""
    folder.mkdir(parents=True, exist_ok=True)
    known = stored(folder)
    for name, (probe, side) in PROBES.items():
        code = code_hash((side,))
        if name in known and known[name]["code"] == code:
            report(f"{name}: is there")
            continue
        if time.monotonic() >= deadline:
            return
        started = time.monotonic()
        settings = side.settings | {"model_dir": Path(side.settings["model_dir"])}
        fact = {"probe": name, "code": code, "result": asdict(probe(settings))}
        with (folder / FACTS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fact) + "\n")
        report(f"{name}: measured in {time.monotonic() - started:.1f} s")
