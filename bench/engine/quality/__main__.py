"""`python -m bench.engine.quality --quantisation int8`: what a setting costs, with its worst slice.

Compares the setting with full precision on the same texts and tasks, prints the table and keeps
the report beside the model, where the worker reads it when it registers. Takes a few minutes.
"""

import argparse
import sys
import time
from pathlib import Path

from bench.engine.quality.judging import judge_tasks, judge_texts
from bench.engine.quality.scoring import Scorer
from bench.engine.quality.slices import LONG_TOKENS, items, passages
from bench.engine.tables.markdown import table
from workers import quality
from workers.config import DEFAULT_MODEL_DIR, EngineConfig
from workers.engine.engine import Engine
from workers.quality import Quality


def measure(full: Engine, setting: Engine) -> Quality:
    """Judge every passage and item with both engines; their sampling plays no part."""
    before, after = (Scorer(engine, tokens_max=LONG_TOKENS) for engine in (full, setting))
    tokenizer = full.tokenizer
    return Quality(
        setting=setting.model.linear_kind,
        reference=full.model.linear_kind,
        slices=[
            *judge_texts(
                passages(tokenizer), full=before, setting=after, vocab_size=tokenizer.vocab_size
            ),
            *judge_tasks(items(tokenizer), full=before, setting=after),
        ],
    )


def render(report: Quality) -> str:
    lines = [
        (
            item.slice,
            str(item.n),
            f"{item.full:.2f}" if item.kind == "text" else f"{100 * item.full:.1f} %",
            f"{item.setting:.2f}" if item.kind == "text" else f"{100 * item.setting:.1f} %",
            f"{100 * item.loss:+.2f} % ({100 * item.loss_low:+.2f} to {100 * item.loss_high:+.2f})",
            f"{100 * item.disagreement:.2f} %",
            f"{item.strain:.2f}",
        )
        for item in sorted(report.slices, key=lambda item: -item.strain)
    ]
    head = ("slice", "n", "full", "setting", "loss (95 %)", "other token or verdict", "of margin")
    verdict = "brittle" if report.is_brittle else "not brittle"
    worst = f"worst slice: {report.worst.slice}; {verdict}"
    return f"{report.setting} against {report.reference}\n\n{table(head, lines)}\n\n{worst}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine.quality", description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--quantisation", default="int8")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    full, setting = (
        Engine.load(
            EngineConfig(model_dir=options.model_dir, threads=options.threads, quantisation=kind)
        )
        for kind in ("none", options.quantisation)
    )
    if setting.model.linear_kind == full.model.linear_kind:
        parser.error(f"{options.quantisation} is not available here: both would be the same")
    report = measure(full, setting)
    sys.stdout.write(render(report))
    path = quality.store(options.model_dir, report)
    sys.stdout.write(f"kept in {path}, {time.monotonic() - started:.0f} s\n")


if __name__ == "__main__":
    main()
