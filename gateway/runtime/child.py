"""Starting one child process so that it cannot outlive us, and stopping it within a limit.

Each child leads a session of its own, so a Ctrl-C at the terminal reaches only the supervisor,
which stops the children in order. If the parent dies without a word, the kernel sends the child its
`death_signal`.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from gateway.runtime.osuser import OsUser

PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, as whom, and which signals mean "please end" to it."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    user: OsUser | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0


def spawn(program: Program, *, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Must be called on the main thread: the death signal is tied to the thread that forks."""
    user = program.user if program.user is not None and program.user.must_switch else None
    return subprocess.Popen(
        program.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(program.environment),
        cwd=program.folder,
        start_new_session=True,
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
        preexec_fn=_before_exec(program.stop_signal, parent=os.getpid()),
    )


def stop(process: subprocess.Popen[bytes], program: Program) -> bool:
    """Asks, waits, then kills; True when it left by itself in time."""
    ask_to_stop(process, program)
    return wait_or_kill(process, program)


def ask_to_stop(process: subprocess.Popen[bytes], program: Program) -> None:
    if process.poll() is None:
        process.send_signal(program.stop_signal)


def wait_or_kill(process: subprocess.Popen[bytes], program: Program) -> bool:
    """Waits for one that was asked, and kills what is left of its session in any case."""
    try:
        process.wait(program.stop_timeout_s)
        left_by_itself = True
    except subprocess.TimeoutExpired:
        left_by_itself = False
    kill_group(process.pid)
    process.wait()
    return left_by_itself


def kill_group(leader_pid: int) -> None:
    """Kills what is left of the session that `leader_pid` leads; nothing left is fine."""
    try:
        os.killpg(leader_pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _before_exec(death_signal: signal.Signals, *, parent: int) -> Callable[[], None]:
    def prepare() -> None:
        # A supervisor started in the background has SIGINT ignored, and exec inherits that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # The parent died between fork and prctl.

    return prepare
