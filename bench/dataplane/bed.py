"""The bench's processes: started pinned to a core, stopped in reverse, gone even if the bench dies.

A subject of the measurement runs alone on the first core; everything else shares the second.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.dataplane.shapes import TOKEN_INTERVAL_US, TOKENS_PER_STREAM
from gateway.runtime import child
from gateway.runtime.child import Program

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
PROJECT: Final = Path(__file__).parents[2]
MOCK_SOURCE: Final = Path(__file__).parent / "mock" / "mock.c"


class BenchFailed(RuntimeError):
    """A process did not start, or a run did not do what it claims to measure."""


class Bed:
    """Holds a folder and the processes of one bench."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cores = sorted(os.sched_getaffinity(0))
        # With a single core there is nothing to keep apart, and the report says so.
        self.subject_core: int | None = cores[0] if len(cores) > 1 else None
        self.other_core: int | None = cores[1] if len(cores) > 1 else None
        self._running: list[tuple[subprocess.Popen[bytes], Program]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process, program in reversed(self._running):
            child.stop(process, program)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int | None,
        environment: Mapping[str, str],
        port: int | None = None,
    ) -> int:
        """Starts a process, waits for its port where it has one, and returns its pid."""
        pinned = ("taskset", "-c", str(core)) if core is not None else ()
        program = Program(
            command=(*pinned, *command),
            environment=environment,
            folder=PROJECT,
            stop_timeout_s=STOP_TIMEOUT_S,
        )
        process = self.run(name, program)
        if port is not None:
            self._wait_for_port(name, process, port)
        return process.pid

    def run(self, name: str, program: Program) -> subprocess.Popen[bytes]:
        """Starts a program as it is; the bed only stops it again."""
        with self.log_path(name).open("ab") as log:
            process = child.spawn(program, log=log)
        self._running.append((process, program))
        return process

    def move_aside(self, pid: int) -> None:
        """To the second core, with the children it will have."""
        if self.other_core is not None:
            os.sched_setaffinity(pid, {self.other_core})

    def log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def log_of(self, name: str) -> str:
        return self.log_path(name).read_text(errors="replace")[-3000:]

    def _wait_for_port(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError as problem:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchFailed(f"{name} did not start\n{self.log_of(name)}") from problem
                time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def start_mock(bed: Bed) -> tuple[int, str]:
    """Starts the upstream; returns its port and which of the two programs it is."""
    port = free_port()
    arguments = [str(port), str(TOKENS_PER_STREAM), str(TOKEN_INTERVAL_US)]
    compiler = shutil.which("gcc")
    if compiler is None:
        command, kind = [sys.executable, "-m", "bench.dataplane.mock.server"], "python"
    else:
        binary = bed.folder / "mock"
        build = [compiler, "-O2", "-o", str(binary), str(MOCK_SOURCE)]
        subprocess.run(build, check=True, capture_output=True, timeout=60)
        command, kind = [str(binary)], "C"
    environment = child_environment()
    bed.start(
        "mock", [*command, *arguments], core=bed.other_core, environment=environment, port=port
    )
    return port, kind


def child_environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
