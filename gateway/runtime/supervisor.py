"""Keeps the children running and stops them in order.

One thread, no event loop: `tick` looks at every child, restarts what crashed after a growing pause,
and returns. All forks happen on the main thread, because the kernel ties a child's death signal to
it.

Whoever watches must outlive what it watches for: a disk without room takes away notes, logs and
whole children, and none of that ends the watch. What could not be written is written later, and who
ended while a disk was full is started again as soon as there is room.
"""

import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from gateway.runtime import child, logs, running_children
from gateway.runtime.child import Program
from gateway.runtime.data_folders import Places

PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
STABLE_AFTER_S: Final = 60.0
TRIM_EVERY_S: Final = 10.0
NOTE_AGAIN_S: Final = 1.0
# A disk with less than this, or than a sixteenth of a small one, is full: PostgreSQL, which asks
# for 16 MiB at once, cannot work on what is left.
ROOM_BYTES_MIN: Final = 32 * 1024 * 1024
ROOM_SHARE: Final = 16


class Stage(IntEnum):
    """The order of stopping: nobody loses what it still needs to finish its work."""

    DATA_PLANE = 1
    CELERY = 2
    CONSOLE = 3
    WORKER = 4
    REDIS = 5
    POSTGRES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A program that should run until the end, or once when `once` is set."""

    name: str
    stage: Stage
    program: Program
    once: bool = False


@dataclass(slots=True)
class _Child:
    service: Service
    process: subprocess.Popen[bytes] | None
    started_s: float
    crashes: int = 0
    restart_at_s: float | None = None
    is_short_of_room: bool = False  # a disk was full when it ended
    exit_code: int | None = field(default=None)


class Supervisor:
    """Owns every child of one installation."""

    def __init__(
        self,
        where: Places,
        *,
        clock: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self._where = where
        self._clock = clock
        self._report = report
        self._children: dict[str, _Child] = {}
        self._trimmed_s = clock()
        self._note_again_s: float | None = None

    def start(self, service: Service) -> subprocess.Popen[bytes]:
        process = self._spawn(service)
        self._children[service.name] = _Child(service, process, started_s=self._clock())
        self._note()
        return process

    def tick(self) -> None:
        """Looks after every child once; call it several times a second."""
        now_s = self._clock()
        for each in self._children.values():
            if each.restart_at_s is not None:
                if now_s >= each.restart_at_s or self._has_room_again(each):
                    self._restart(each)
            elif each.exit_code is None and each.process is not None:
                if (code := each.process.poll()) is not None:
                    self._exited(each, each.process.pid, code)
        if now_s - self._trimmed_s > TRIM_EVERY_S:
            self._trimmed_s = now_s
            logs.trim(self._where.logs)
        if self._note_again_s is not None and now_s >= self._note_again_s:
            self._note()

    def exit_code(self, name: str) -> int | None:
        """How a `once` service ended; None while it runs."""
        return self._children[name].exit_code

    def stop_all(self, *, progress: Callable[[str], None]) -> None:
        """Stops stage by stage; within a stage all are asked first, then waited for."""
        for stage in Stage:
            running = [
                (each, process) for each, process in self._running() if each.service.stage is stage
            ]
            for each, process in running:
                progress(f"stopping {each.service.name}")
                child.ask_to_stop(process, each.service.program)
            for each, process in running:
                if not child.wait_or_kill(process, each.service.program):
                    self._report(f"{each.service.name} did not stop in time and was killed")
                each.exit_code = process.returncode
        self._children.clear()
        self._note()

    def _exited(self, each: _Child, pid: int, code: int) -> None:
        # Its own children may live on and hold the port or the lock that the next one needs.
        child.kill_group(pid)
        if each.service.once:
            each.exit_code = code
            self._note()
            return
        if self._clock() - each.started_s > STABLE_AFTER_S:
            each.crashes = 0
        self._pause(each, f"ended with {code}")
        self._note()

    def _pause(self, each: _Child, what: str) -> None:
        """Have it started again, after a pause that grows with its crashes."""
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**each.crashes)
        each.crashes = min(each.crashes + 1, 16)
        each.restart_at_s = self._clock() + pause_s
        each.is_short_of_room = self._is_full()
        why = ", a disk is full" if each.is_short_of_room else ""
        self._report(f"{each.service.name} {what}{why}; starting it again in {pause_s:g} s")

    def _restart(self, each: _Child) -> None:
        each.restart_at_s = None
        each.started_s = self._clock()
        try:
            each.process = self._spawn(each.service)
        except OSError as problem:
            each.process = None
            self._pause(each, f"could not be started: {problem}")
        self._note()

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        with logs.open_log(self._where.logs, service.name) as log:
            return child.spawn(service.program, log=log)

    def _running(self) -> Iterable[tuple[_Child, subprocess.Popen[bytes]]]:
        return [
            (each, each.process)
            for each in self._children.values()
            if each.process is not None and each.process.poll() is None
        ]

    def _note(self) -> None:
        entries = [
            running_children.entry_for(e.service.name, process.pid)
            for e, process in self._running()
        ]
        try:
            running_children.note(self._where, entries)
        except OSError as problem:
            if self._note_again_s is None:
                self._report(f"the list of children cannot be written: {problem}")
            self._note_again_s = self._clock() + NOTE_AGAIN_S
        else:
            self._note_again_s = None

    def _has_room_again(self, each: _Child) -> bool:
        if each.is_short_of_room and not self._is_full():
            each.crashes, each.is_short_of_room = 0, False
            return True
        return False

    def _is_full(self) -> bool:
        """Whether any disk that something here lives on has no room left."""
        where = self._where
        folders = (where.root, where.logs, where.spool, where.redis_data, where.postgres_data)
        return any(_is_full(folder) for folder in folders)


def _is_full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False  # What is not there is not full.
    needed = min(ROOM_BYTES_MIN, disk.f_blocks * disk.f_frsize // ROOM_SHARE)
    return disk.f_bavail * disk.f_frsize < needed
