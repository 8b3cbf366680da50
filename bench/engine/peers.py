"""`python -m bench.engine.peers`: makes `.venv-peers`, the environment of what we compare with.

It holds llama.cpp's wheel and the plotting library, pinned with hashes; the project itself needs
neither. transformers, the other peer, is part of the worker's environment already.
"""

import subprocess
import sys
from typing import Final

from bench.engine.side import CLONE, PYTHONS

REQUIREMENTS: Final = CLONE / "bench/engine/requirements-peers.txt"
INSTALL_TIMEOUT_S: Final = 900


def are_ready() -> bool:
    return PYTHONS["peers"].is_file()


def make() -> None:
    """Create the environment, or bring it up to date with the pins."""
    environment = PYTHONS["peers"].parent.parent
    if not are_ready():
        _run("-m", "venv", str(environment))
    _run("-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "-r", REQUIREMENTS)


def _run(*arguments: object) -> None:
    python = PYTHONS["peers"] if are_ready() else sys.executable
    command = [str(python), *(str(argument) for argument in arguments)]
    subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S)


if __name__ == "__main__":
    make()
