"""Clocks, and the times of one attempt. All of it is the gateway's clock, never the engine's.

Durations come from the monotonic clock, instants from the wall clock; both are injected.
"""

import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float: ...

    def now_ms(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def monotonic(self) -> float:
        return time.monotonic()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Stopwatch:
    """Marks of one attempt: sent, first token, last token."""

    clock: Clock
    started_ms: int = field(init=False)
    started: float = field(init=False)
    first: float | None = None
    last: float | None = None

    def __post_init__(self) -> None:
        self.started_ms = self.clock.now_ms()
        self.started = self.clock.monotonic()

    def token(self) -> None:
        """A chunk with content has arrived."""
        self.last = self.clock.monotonic()
        if self.first is None:
            self.first = self.last

    @property
    def ttft_ms(self) -> float | None:
        return None if self.first is None else _ms(self.first - self.started)

    @property
    def e2e_ms(self) -> float:
        return _ms(self.clock.monotonic() - self.started)

    def tpot_ms(self, output_tokens: int) -> float | None:
        """Mean time per output token after the first; None where that says nothing."""
        if self.first is None or self.last is None or output_tokens < 2:
            return None
        return _ms((self.last - self.first) / (output_tokens - 1)) or None

    def output_tps(self, output_tokens: int) -> float | None:
        """Output tokens per second after the first token."""
        tpot_ms = self.tpot_ms(output_tokens)
        return round(1000 / tpot_ms, 2) if tpot_ms else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
