"""The time that this process goes by: the machine's, as long as Redis' clock agrees with it.

Between two comparisons it is carried on by a clock that nobody sets, so that a jump of the
machine's clock reaches no request. Of the three (machine, carried on, Redis) two must agree: a
machine whose clock has jumped serves on by Redis' time, and where Redis stands alone, or both
stand against Redis from the start, nobody knows the time and nothing is admitted.
"""

import logging
import time

from gateway.clocks.stopwatch import Clock

logger = logging.getLogger(__name__)

MS_PER_NS = 1_000_000


class HouseClock:
    """Compared by whoever asks Redis; `skew_ms` is how far it is off for sure, None at first."""

    def __init__(self, machine: Clock, *, skew_ms_max: int) -> None:
        self._machine = machine
        self._skew_ms_max = skew_ms_max
        self._offset_ms = machine.now_ms() - _carried_ms()
        self._is_followed = True
        self.skew_ms: int | None = None

    def monotonic(self) -> float:
        return self._machine.monotonic()

    def now_ms(self) -> int:
        return _carried_ms() + self._offset_ms

    @property
    def trouble(self) -> str:
        """Why nobody should be admitted by this clock; empty where nothing speaks against it."""
        if self.skew_ms is not None and abs(self.skew_ms) > self._skew_ms_max:
            return f"the clock differs from Redis' by {self.skew_ms} ms"
        return ""

    def compare(self, redis_ms: int, *, uncertain_ms: int) -> None:
        """Take up what Redis said, known to within `uncertain_ms` of now."""
        machine_ms, carried_ms = self._machine.now_ms(), self.now_ms()
        if abs(_surely_off(machine_ms - redis_ms, uncertain_ms)) <= self._skew_ms_max:
            self._follow_machine(is_right=True)
            self._offset_ms += machine_ms - carried_ms
            self.skew_ms = _surely_off(machine_ms - redis_ms, uncertain_ms)
            return
        self.skew_ms = _surely_off(carried_ms - redis_ms, uncertain_ms)
        if abs(self.skew_ms) <= self._skew_ms_max:
            self._follow_machine(is_right=False)
            self._offset_ms -= self.skew_ms

    def _follow_machine(self, *, is_right: bool) -> None:
        if is_right != self._is_followed:
            said = "is right again" if is_right else "is wrong; going by Redis' time"
            logger.warning("the machine's clock %s", said)
        self._is_followed = is_right


def _surely_off(difference_ms: int, uncertain_ms: int) -> int:
    """The least difference that the measurement leaves possible, with its sign."""
    least = max(abs(difference_ms) - uncertain_ms, 0)
    return least if difference_ms > 0 else -least


def _carried_ms() -> int:
    """Goes on while the machine sleeps, and is never set."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // MS_PER_NS
