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
STOP_TIMEOUT_S: Final = 20.0
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

    def __init__(self, side: Side, log: IO[bytes]) -> None:
        self.side = side
        self._log = log
        self._process = subprocess.Popen(
            [side.python, "-m", f"bench.engine.sides.{side.module}", json.dumps(side.settings)],
            cwd=CLONE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Nothing that a side needs is on the network.
            env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.facts: dict[str, str] = json.loads(self._line(START_TIMEOUT_S))

    def run(self, job: Job) -> Outcome:
        # A side that is gone is told by its missing answer, together with its log.
        with suppress(BrokenPipeError):
            self._input.write(json.dumps(asdict(job)).encode() + b"\n")
            self._input.flush()
        return Outcome(**json.loads(self._line(JOB_TIMEOUT_S)))

    def stop(self) -> None:
        with suppress(BrokenPipeError):
            self._input.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

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
    """Start a side, hand it out ready, and end it whatever happens."""
    with tempfile.TemporaryFile() as log:
        started = RunningSide(side, log)
        try:
            yield started
        finally:
            started.stop()
