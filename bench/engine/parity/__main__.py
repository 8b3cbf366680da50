"""`python -m bench.engine.parity`: 200 greedy answers by every proposer, against transformers'.

fp32 is compared with transformers, whose answers are computed once and kept; int8 with itself, one
prompt at a time without drafts. Batches of 1 to 32, in a pool with room and in one that forces
preemption. It can be stopped at any time and goes on where it stopped. Ends with 1 if a text
differs by more than rounding, with 2 if something is still missing.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

from bench.engine.parity.matrix import MODES, Compared
from bench.engine.parity.prompts import COUNT
from bench.engine.parity.reference import LOGIT_GAP
from bench.engine.parity.sitting import Sitting
from bench.engine.parity.table import render
from bench.engine.rounds import code_hash
from bench.engine.tables.page import PAGE, put
from workers.config import DEFAULT_MODEL_DIR, EngineConfig, Quantisation

DEFAULT_FOLDER = Path(".tokenhouse/bench/parity")
DIFFERENT, INCOMPLETE = 1, 2
AGAINST = {
    "none": f"fp32 against transformers (ties: at most {LOGIT_GAP} apart in logits)",
    "int8": "int8 against itself, one prompt at a time, no drafts (no ties allowed)",
}


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.parity", description=__doc__)
    parser.add_argument("--quantisation", choices=get_args(Quantisation), default="none")
    parser.add_argument("--modes", default=",".join(MODES), help="proposers, with commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--for", dest="seconds", type=float, default=float("inf"), help="seconds of this sitting"
    )
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where results are")
    parser.add_argument("--docs", action="store_true", help=f"renew the table of {PAGE.name}")
    options = parser.parse_args(arguments)
    options.modes = options.modes.split(",")
    if not set(options.modes) <= set(MODES):
        parser.error(f"--modes knows {', '.join(MODES)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    config = EngineConfig(
        model_dir=options.model_dir,
        quantisation=options.quantisation,
        threads=options.threads,
    )
    sitting = Sitting(
        config=config,
        folder=options.folder,
        modes=options.modes,
        deadline=time.monotonic() + options.seconds,
        code=code_hash(()),
        report=write,
    )
    if not sitting.run():
        write("the time is up; the same command goes on from here")
    results = sitting.results()
    text = render(results, against=AGAINST[options.quantisation])
    write("\n" + text)
    if options.docs:
        put(f"parity {options.quantisation}", text)
    return _verdict(results, modes=len(options.modes))


def _verdict(results: list[Compared], *, modes: int) -> int:
    if any(item.different for item in results):
        return DIFFERENT
    return 0 if sum(item.size for item in results) >= COUNT * modes else INCOMPLETE


if __name__ == "__main__":
    raise SystemExit(main())
