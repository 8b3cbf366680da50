"""Keeps the children running and stops them in order.

One thread, no event loop: `tick` looks at every child, restarts what crashed after a growing pause,
and returns. All forks happen on the main thread, because the kernel ties a child's death signal to
it.
"""

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from gateway.runtime import child, logs, roster
from gateway.runtime.child import Program
from gateway.runtime.places import Places

PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
STABLE_AFTER_S: Final = 60.0
TRIM_EVERY_S: Final = 10.0


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
    process: subprocess.Popen[bytes]
    started_s: float
    crashes: int = 0
    restart_at_s: float | None = None
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
                if now_s >= each.restart_at_s:
                    self._restart(each)
            elif each.exit_code is None and (code := each.process.poll()) is not None:
                self._exited(each, code)
        if now_s - self._trimmed_s > TRIM_EVERY_S:
            self._trimmed_s = now_s
            logs.trim(self._where.logs)

    def exit_code(self, name: str) -> int | None:
        """How a `once` service ended; None while it runs."""
        return self._children[name].exit_code

    def stop_all(self, *, progress: Callable[[str], None]) -> None:
        """Stops stage by stage; within a stage all are asked first, then waited for."""
        for stage in Stage:
            running = [each for each in self._running() if each.service.stage is stage]
            for each in running:
                progress(f"stopping {each.service.name}")
                child.ask_to_stop(each.process, each.service.program)
            for each in running:
                if not child.wait_or_kill(each.process, each.service.program):
                    self._report(f"{each.service.name} did not stop in time and was killed")
                each.exit_code = each.process.returncode
        self._children.clear()
        self._note()

    def _exited(self, each: _Child, code: int) -> None:
        # Its own children may live on and hold the port or the lock that the next one needs.
        child.kill_group(each.process.pid)
        if each.service.once:
            each.exit_code = code
            self._note()
            return
        now_s = self._clock()
        if now_s - each.started_s > STABLE_AFTER_S:
            each.crashes = 0
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**each.crashes)
        each.crashes = min(each.crashes + 1, 16)
        each.restart_at_s = now_s + pause_s
        self._report(f"{each.service.name} ended with {code}; starting it again in {pause_s:g} s")
        self._note()

    def _restart(self, each: _Child) -> None:
        each.restart_at_s = None
        each.started_s = self._clock()
        each.process = self._spawn(each.service)
        self._note()

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        with logs.open_log(self._where.logs, service.name) as log:
            return child.spawn(service.program, log=log)

    def _running(self) -> Iterable[_Child]:
        return [each for each in self._children.values() if each.process.poll() is None]

    def _note(self) -> None:
        entries = [roster.entry_for(e.service.name, e.process.pid) for e in self._running()]
        roster.note(self._where, entries)
