"""The attempts of one request on one time axis, in thousandths of its width. Pure.

Times are the gateway's clock: from when the request got its id to when the last attempt ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from billing import outcomes
from billing.models import UsageEvent

WIDTH: Final = 1000
NARROWEST: Final = 3  # a bar that is there is seen


@dataclass(frozen=True, slots=True)
class Bar:
    kind: str  # before, wait, flow, failed
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class Lane:
    event: UsageEvent
    bars: tuple[Bar, ...]
    starts_ms: float
    ends_ms: float

    @property
    def tone(self) -> str:
        return outcomes.of(self.event.outcome).tone


@dataclass(frozen=True, slots=True)
class Waterfall:
    lanes: tuple[Lane, ...]
    total_ms: float


@dataclass(frozen=True, slots=True)
class _Times:
    """One attempt on the axis: where it was sent, its first token, its end."""

    sent_ms: float
    first_ms: float | None
    end_ms: float


def draw(attempts: Sequence[UsageEvent]) -> Waterfall:
    began = attempts[0].occurred_at
    lead_ms = _lead_ms(attempts[0].request_id, began)
    times = [_times(event, began, lead_ms) for event in attempts]
    total_ms = max(t.end_ms for t in times)
    scale = WIDTH / total_ms if total_ms > 0 else 0.0
    lanes = []
    for place, (event, t) in enumerate(zip(attempts, times, strict=True)):
        bars = list(_bars(event, t, scale))
        if place == 0 and lead_ms > 0:
            bars.insert(0, _bar("before", 0.0, lead_ms, scale))
        lanes.append(Lane(event=event, bars=tuple(bars), starts_ms=t.sent_ms, ends_ms=t.end_ms))
    return Waterfall(lanes=tuple(lanes), total_ms=total_ms)


def _lead_ms(request_id: UUID, sent_at: datetime) -> float:
    """From the instant inside the UUIDv7 to the first attempt: key check, routing, hold."""
    if request_id.version != 7:
        return 0.0
    return max(0.0, sent_at.timestamp() * 1000 - (request_id.int >> 80))


def _times(event: UsageEvent, began: datetime, lead_ms: float) -> _Times:
    sent_ms = lead_ms + (event.occurred_at - began).total_seconds() * 1000
    whole_ms = event.detail.get("e2e_ms")
    if whole_ms is None:
        whole_ms = max(0.0, (event.settled_at - event.occurred_at).total_seconds() * 1000)
    ttft_ms = event.detail.get("ttft_ms")
    first_ms = None if ttft_ms is None else sent_ms + min(float(ttft_ms), float(whole_ms))
    return _Times(sent_ms=sent_ms, first_ms=first_ms, end_ms=sent_ms + float(whole_ms))


def _bars(event: UsageEvent, t: _Times, scale: float) -> list[Bar]:
    outcome = outcomes.of(event.outcome)
    if t.first_ms is None:
        kind = "failed" if outcome.broke_off else "wait"
        return [_bar(kind, t.sent_ms, t.end_ms, scale)]
    flowing = "failed" if outcome.broke_off else "flow"
    return [
        _bar("wait", t.sent_ms, t.first_ms, scale),
        _bar(flowing, t.first_ms, t.end_ms, scale),
    ]


def _bar(kind: str, start_ms: float, end_ms: float, scale: float) -> Bar:
    x = min(round(start_ms * scale), WIDTH - NARROWEST)
    width = max(NARROWEST, round((end_ms - start_ms) * scale))
    return Bar(kind=kind, x=x, width=min(width, WIDTH - x))
