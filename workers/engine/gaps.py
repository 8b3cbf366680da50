"""Seconds between the tokens of single streams: of one alone, and while every seat is taken.

A step that brings a stream several tokens at once ends one gap. The last ones of each kind are
kept, so the figures follow the present traffic.
"""

from collections import deque
from typing import Final

import msgspec

KEPT: Final = 1_000
TAIL: Final = 0.95


class Gap(msgspec.Struct, frozen=True):
    """`n`: of how many gaps it is the 95th percentile."""

    p95_ms: float
    n: int


class GapFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """By kind; what was never seen is left out."""

    alone: Gap | None = None
    full: Gap | None = None


class Gaps:
    def __init__(self) -> None:
        self._alone: deque[float] = deque(maxlen=KEPT)
        self._full: deque[float] = deque(maxlen=KEPT)

    def observe(self, seconds: float, *, running: int, seats: int) -> None:
        if running >= seats:
            self._full.append(seconds)
        elif running == 1:
            self._alone.append(seconds)

    def figures(self) -> GapFigures:
        return GapFigures(_gap(sorted(self._alone)), _gap(sorted(self._full)))


def _gap(ordered: list[float]) -> Gap | None:
    if not ordered:
        return None
    tail = ordered[min(int(TAIL * len(ordered)), len(ordered) - 1)]
    return Gap(round(tail * 1e3, 3), len(ordered))
