"""Sides of a comparison, each started in a process and an environment of its own."""

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Final, Literal

from bench.engine.wire import Job, Outcome, Settings

CLONE: Final = Path(__file__).resolve().parents[2]
PYTHONS: Final = {
    "worker": CLONE / ".venv-worker/bin/python",
    "peers": CLONE / ".venv-peers/bin/python",
}
START_TIMEOUT_S: Final = 120.0
JOB_TIMEOUT_S: Final = 240.0
LOG_TAIL_BYTES: Final = 2000


class SideFailed(RuntimeError):
    """A side ended or fell silent; the message carries the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One engine with its settings. `share`: the part of a job's prompts that it is given."""

    name: str
    module: Literal["tokenhouse", "transformers", "llamacpp"]
    settings: Settings = field(default_factory=dict)
    share: float = 1.0

    @property
    def python(self) -> Path:
        return PYTHONS["peers" if self.module == "llamacpp" else "worker"]


class RunningSide:
    """A started side; `facts` is what it said about itself."""

    def __init__(self, side: Side, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.side = side
        self._process = process
        self._input, self._output = process.stdin, process.stdout
        self._log = log
        self.facts: dict[str, str] = json.loads(self._line(START_TIMEOUT_S))

    def run(self, job: Job) -> Outcome:
        # A side that is gone is told by its missing answer, together with its log.
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(asdict(job)).encode() + b"\n")
            self._input.flush()
        return Outcome(**json.loads(self._line(JOB_TIMEOUT_S)))

    def _line(self, timeout_s: float) -> bytes:
        """The side's next line; a side that is too slow is ended."""
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            line = self._output.readline()
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            code = self._process.wait()
            raise SideFailed(f"{self.side.name} ended with {code}\n{self._log_tail()}")
        return line

    def _log_tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace")


@contextmanager
def running(side: Side) -> Iterator[RunningSide]:
    """Start a side, hand it out ready, and end it whatever happens. Raises `SideFailed`."""
    with tempfile.TemporaryFile() as log, _process(side, log) as process:
        try:
            yield RunningSide(side, process, log)
        finally:
            process.kill()


def _process(side: Side, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [side.python, "-m", f"bench.engine.sides.{side.module}", json.dumps(side.settings)],
        cwd=CLONE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )
