"""Knows when this process stood still: stopped, starved of processor time, collecting garbage.

A beat on the loop every BEAT_S; a beat that comes late by more than STILL_S tells of time in which
nothing was read here, and which nobody else may be blamed for. Time limits are lengthened by it.
"""

import asyncio

from gateway.clocks.stopwatch import Clock
from providers.outbound.process_pauses import STILL_S

BEAT_S = 0.1


class Pulse:
    """Counts from the first `start`; before it nothing is ever lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen = clock.monotonic()
        self._lost_s = 0.0
        self._beating: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._seen = self._clock.monotonic()
        self._beat()

    def lost_s(self) -> float:
        """The seconds in which this process stood still, up to now. A timer that fires late sees
        them although the beat itself has not come yet."""
        now = self._clock.monotonic()
        late_s = now - self._seen - BEAT_S
        self._seen = now
        if self._beating is not None and late_s > STILL_S:
            self._lost_s += late_s
        return self._lost_s

    def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    def _beat(self) -> None:
        self._beating = asyncio.get_running_loop().call_later(BEAT_S, self._beat)
        self.lost_s()
