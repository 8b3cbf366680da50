"""Waiting for what other processes do, and a clock for what they have promised to do in time.

`PATIENCE_S` is no promise of anybody: it only ends a test that has failed. What is promised in
seconds is measured by `ran_s`, which stands still while the machine does and goes slower where it
wakes its processes late: a shared machine is nobody's fault. It says that something was quick
enough; that something lasted for so long is for `time.monotonic`.
"""

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_S: Final = 120.0
POLL_S: Final = 0.02
TICK_S: Final = 0.02


class _Ticks:
    """A thread that asks to be woken again and again. However late it is woken, that counts as two
    turns at most: nobody else was running in time either."""

    def __init__(self) -> None:
        self.ran_s = 0.0
        self._looked_at = time.monotonic()
        threading.Thread(target=self._go_on, name="ran_s", daemon=True).start()

    def _go_on(self) -> None:
        while True:
            time.sleep(TICK_S)
            now = time.monotonic()
            self.ran_s += min(now - self._looked_at, 2 * TICK_S)
            self._looked_at = now


@cache
def _ticks() -> _Ticks:
    """From the first time that somebody asks: most who import this never do."""
    return _Ticks()


def ran_s() -> float:
    """As `time.monotonic`, in seconds during which this machine let its processes run."""
    return _ticks().ran_s


def eventually(
    ask: Callable[[], T],
    *,
    timeout_s: float = PATIENCE_S,
    poll_s: float = POLL_S,
    said: Callable[[], str] = str,
) -> T:
    """The first true answer. It is this answer that is to be asserted on: whoever asks again may
    be told something else, by another process or by a page that is behind. `said` adds to the
    complaint where there is none."""
    began = ran_s()
    while not (answer := ask()):
        assert ran_s() - began < timeout_s, f"it did not come about in {timeout_s} s\n{said()}"
        time.sleep(poll_s)
    return answer
