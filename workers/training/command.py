"""What the commands of this folder share: their options, and lines that are seen at once."""

import argparse
import sys
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging


def parser(module: str, description: str | None, *, minutes: float) -> argparse.ArgumentParser:
    """Options of a command that trains what stands in a model folder, on text."""
    made = argparse.ArgumentParser(
        prog=f"python -m workers.training.{module}", description=description
    )
    made.add_argument("model_dir", type=Path)
    made.add_argument("--minutes", type=float, default=minutes, help="CPU time to spend")
    made.add_argument("--text", type=Path, help="default: Python's own language reference")
    made.add_argument("--threads", type=int, default=1)
    return made


def begin(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
