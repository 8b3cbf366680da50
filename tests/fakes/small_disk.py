"""A file system of a few megabytes that a test can fill up, and empty again."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PIECE = b"x" * 4096


@dataclass(frozen=True, slots=True)
class SmallDisk:
    path: Path

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self) -> None:
        """Until there is no room for one more byte, nor for one more file."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(PIECE)
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"x")

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Mounted at `path` until the end; skips the test where mounting is not permitted."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=1777"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tokenhouse-test", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a service that ends a moment later still has files open in it.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        os.rmdir(path)
