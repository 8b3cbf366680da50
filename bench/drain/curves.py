"""Line charts as SVG text, stacked above one axis; the same figures give the same text. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from typing import Final

WIDTH: Final = 700
PANEL_HEIGHT: Final = 150
LEFT: Final = 70
RIGHT: Final = 20
ABOVE: Final = 62
BELOW: Final = 40
# Legible on light and dark pages alike, and told apart by people who see few colours.
COLOURS: Final = ("#3b7dd8", "#e07b00", "#2a9d5c", "#b0489a")
INK: Final = "#7a7f87"
TICKS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over the same places across, from zero up; `aim` is drawn across, dashed."""

    title: str
    across: Sequence[float]
    lines: Mapping[str, Sequence[float]]
    aim: float | None = None

    @property
    def top(self) -> float:
        values = [value for line in self.lines.values() for value in line]
        return max(*values, self.aim or 0) * 1.05


def svg(panels: Sequence[Panel], *, across: str) -> str:
    height = len(panels) * (ABOVE + PANEL_HEIGHT) + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="sans-serif" font-size="12" fill="{INK}">'
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, number * (ABOVE + PANEL_HEIGHT) + ABOVE)
    parts.append(_text(LEFT + _inner() / 2, height - 6, across, anchor="middle"))
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, above: float) -> list[str]:
    farthest = max(panel.across)
    below = above + PANEL_HEIGHT

    def x(value: float) -> float:
        return LEFT + value / farthest * _inner()

    def y(value: float) -> float:
        return below - value / panel.top * PANEL_HEIGHT

    parts = [_text(LEFT, above - 28, panel.title)]
    for tick in _ticks(panel.top):
        parts.append(_line(LEFT, y(tick), WIDTH - RIGHT, y(tick), opacity=0.25))
        parts.append(_text(LEFT - 6, y(tick) + 4, f"{tick:,g}", anchor="end"))
    for tick in _ticks(farthest):
        parts.append(_text(x(tick), below + 15, f"{tick:g}", anchor="middle"))
    if panel.aim is not None:
        aim = y(panel.aim)
        parts.append(_line(LEFT, aim, WIDTH - RIGHT, aim, dashes="6 4"))
    for place, (name, values) in enumerate(panel.lines.items()):
        colour = COLOURS[place]
        points = " ".join(
            f"{x(at):.1f},{y(value):.1f}" for at, value in zip(panel.across, values, strict=True)
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        )
        parts.append(_text(LEFT + place * 155, above - 9, name, colour=colour))
    return parts


def _inner() -> int:
    return WIDTH - LEFT - RIGHT


def _ticks(top: float) -> list[float]:
    """Round steps from zero to the top, at most TICKS_MAX of them."""
    power = 10 ** floor(log10(top))
    steps = (factor * power for factor in (0.1, 0.2, 0.5, 1, 2, 5))
    step = next(step for step in steps if top / step <= TICKS_MAX)
    return [round(number * step, 10) for number in range(int(top / step) + 1)]


def _line(
    x1: float, y1: float, x2: float, y2: float, *, opacity: float = 1, dashes: str = ""
) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}"'
        f' stroke-opacity="{opacity}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(text)}</text>'
