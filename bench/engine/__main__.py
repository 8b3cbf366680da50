"""`python -m bench.engine`: every row of the engine's table, with its peers, in one command.

Measures what is missing in the folder of results, prints the tables and draws the plots. It can be
stopped at any time and goes on where it stopped: `--for` bounds one sitting. Ratios come from
interleaved rounds; on a machine that does other work, expect wide intervals.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.engine import facts, peers, rounds, summary
from bench.engine.experiments import Experiment, chosen, with_sides
from bench.engine.rounds import Recorder
from bench.engine.side import CLONE, PYTHONS
from bench.engine.tables.report import render
from workers.config import DEFAULT_MODEL_DIR
from workers.text.tokenizer import Tokenizer

DEFAULT_FOLDER = Path(".tokenhouse/bench/engine")
PLOT_TIMEOUT_S = 120
PAGE = CLONE / "docs/engine-measured.md"
BEGIN = "<!-- figures: begin (python -m bench.engine --report --docs) -->"
END = "<!-- figures: end -->"


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def measure(folder: Path, experiments: tuple[Experiment, ...], options: argparse.Namespace) -> None:
    wanted = {item.key: options.pairs or item.rounds for item in experiments}
    minutes = sum(item.minutes * wanted[item.key] / item.rounds for item in experiments)
    write(f"about {minutes:.0f} minutes in all on two quiet cores, less what is there already")
    deadline = time.monotonic() + options.seconds
    recorder = Recorder(folder, Tokenizer(DEFAULT_MODEL_DIR), deadline=deadline, report=write)
    for experiment in experiments:
        if not recorder.record(experiment, rounds=wanted[experiment.key]):
            write("the time is up; the same command goes on from here")
            return
    if not (options.only or options.sides):
        facts.measure_missing(folder, deadline=deadline, report=write)


def publish(folder: Path) -> str:
    """Print the tables; write them, the summary and the plots into the folder. The tables."""
    figures = summary.summarise(rounds.stored(folder), facts.stored(folder))
    (folder / "summary.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    text = render(figures)
    (folder / "tables.md").write_text(text, encoding="utf-8")
    write("\n" + text)
    if peers.are_ready():
        command = [str(PYTHONS["peers"]), "-m", "bench.engine.tables.plots", str(folder)]
        subprocess.run(command, cwd=CLONE, check=True, timeout=PLOT_TIMEOUT_S)
    return text


def update_docs(folder: Path, tables: str) -> None:
    """Put the tables between the marks of the engine's figures, and the plots beside it."""
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} has no place for tables: {BEGIN} and {END}")
    plots = sorted(folder.glob("*.svg"))
    for plot in plots:
        shutil.copyfile(plot, PAGE.parent / "img" / f"engine-{plot.name}")
    images = "\n".join(f"![{plot.stem}](img/engine-{plot.name})" for plot in plots)
    parts = [f"{before}{begin}", tables.strip(), images, f"{end}{after}"]
    PAGE.write_text("\n\n".join(part for part in parts if part), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--only", help="keys of experiments, with commas; default: all, and facts")
    parser.add_argument(
        "--sides", help="names of sides, with commas, to compare only these; needs a --folder"
    )
    parser.add_argument("--pairs", type=int, help="rounds of each experiment; default: its own")
    parser.add_argument(
        "--for", dest="seconds", type=float, default=float("inf"), help="seconds of this sitting"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, only report")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where results are")
    parser.add_argument("--docs", action="store_true", help=f"renew the figures of {PAGE.name}")
    options = parser.parse_args()
    try:
        experiments = chosen(options.only.split(",") if options.only else None)
        if options.sides:
            names = options.sides.split(",")
            experiments = tuple(with_sides(item, names) for item in experiments)
    except ValueError as error:
        parser.error(str(error))
    if options.sides and options.folder == DEFAULT_FOLDER:
        parser.error("--sides needs a --folder of its own: its rounds would hide the complete ones")
    if not options.sides and not peers.are_ready():
        parser.error("the peers are missing; run: python -m bench.engine.peers")
    if not options.report:
        measure(options.folder, experiments, options)
    tables = publish(options.folder)
    if options.docs:
        update_docs(options.folder, tables)


if __name__ == "__main__":
    main()
