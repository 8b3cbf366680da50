"""Compiles the kernels for this processor, once, into a shared library with a plain C interface.

It takes seconds and happens when an engine starts that wants them, never while it serves. The
library's name carries a digest of the sources, the flags and what the processor can do; it appears
complete or not at all. `python -m workers.kernels.build` makes it ahead of the first start.
"""

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from workers.config import DEFAULT_KERNEL_DIR

SOURCES = Path(__file__).parent
MAIN_SOURCE = "decoder.cpp"
COMPILERS = ("g++", "c++")
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-shared", "-pthread", "-Wno-psabi")
NATIVE = ("-march=native",)
COMPILE_TIMEOUT_S = 120


class CannotBuild(RuntimeError):
    """No compiler, or one that refuses the sources; the text says which and why."""


def built_library(folder: Path, *, target: tuple[str, ...] = NATIVE) -> Path:
    """The library for this processor, compiled if it is not in `folder` yet."""
    path = folder / f"kernels-{_digest(target)}.so"
    if not path.is_file():
        _compile(path, target)
    return path


def _digest(target: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr((FLAGS, target, platform.machine(), _abilities())).encode())
    for source in sorted(SOURCES.glob("*.[ch]*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _abilities() -> str:
    """What the processor can do, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line for line in lines if line.startswith("flags")), platform.processor())


def _compile(path: Path, target: tuple[str, ...]) -> None:
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CannotBuild(f"there is no compiler here ({' or '.join(COMPILERS)})")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as staging:
            result = Path(staging) / path.name
            command = [compiler, *FLAGS, *target, "-o", str(result), str(SOURCES / MAIN_SOURCE)]
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S
            )
            result.replace(path)
    except subprocess.CalledProcessError as error:
        raise CannotBuild(f"{compiler} failed: {error.stderr.strip()[-500:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(str(error)) from error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.kernels.build", description=__doc__)
    parser.add_argument("--kernel-dir", type=Path, default=DEFAULT_KERNEL_DIR)
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"{built_library(options.kernel_dir)}\n")
    except CannotBuild as error:
        sys.stderr.write(f"the int8 kernels cannot be built: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
