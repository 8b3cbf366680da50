"""Seconds between the tokens of single streams: of one alone, and while every seat is taken.

A step that brings a stream several tokens at once ends one gap. The last ones of each kind are
kept, so the figures follow the present traffic.
"""

from collections import deque
from typing import Final

KEPT: Final = 1_000
TAIL: Final = 0.95

# p95 in milliseconds and how many gaps it is of, by kind; what was never seen is left out.
GapFigures = dict[str, dict[str, float]]


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
        kinds = {"alone": sorted(self._alone), "full": sorted(self._full)}
        return {
            name: {"p95_ms": round(_tail(gaps) * 1e3, 3), "n": len(gaps)}
            for name, gaps in kinds.items()
            if gaps
        }


def _tail(ordered: list[float]) -> float:
    return ordered[min(int(TAIL * len(ordered)), len(ordered) - 1)]
