"""A step line small enough for a table cell: prices hold, then jump; they never slope. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

WIDTH: Final = 88
HEIGHT: Final = 24
MARGIN: Final = 2


def path(steps: Sequence[tuple[str, float]], *, since: datetime, now: datetime) -> str:
    """An SVG path over WIDTH x HEIGHT, from `since` to `now`; empty for less than one step."""
    if not steps:
        return ""
    times = [datetime.fromisoformat(at).timestamp() for at, _ in steps]
    values = [float(value) for _, value in steps]
    start = min(since.timestamp(), times[0])
    end = max(now.timestamp(), start + 1)
    low, high = min(values), max(values)

    def x(at: float) -> str:
        return f"{(at - start) / (end - start) * WIDTH:.1f}"

    def y(value: float) -> str:
        if high == low:
            return f"{HEIGHT / 2:.1f}"
        return f"{MARGIN + (high - value) / (high - low) * (HEIGHT - 2 * MARGIN):.1f}"

    drawn = [f"M{x(times[0])} {y(values[0])}"]
    drawn += [f"H{x(at)}V{y(value)}" for at, value in zip(times[1:], values[1:], strict=True)]
    return "".join([*drawn, f"H{WIDTH}"])
