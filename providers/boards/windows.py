"""The boards' windows: which rollups each is made of, and their sums per offer."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing import fault_isolation
from providers.boards import histograms
from providers.boards.histograms import Histogram
from providers.boards.measurements import COUNTED
from providers.boards.rollup_deltas import MAPS, start_of
from providers.models import MeasurementRollup

Span = MeasurementRollup.Span


@dataclass(frozen=True, slots=True)
class Window:
    name: str
    span: str
    length: timedelta


WINDOWS = {
    window.name: window
    for window in (
        Window("5m", Span.MINUTE, timedelta(minutes=5)),
        Window("1h", Span.MINUTE, timedelta(hours=1)),
        Window("24h", Span.HOUR, timedelta(hours=24)),
        Window("7d", Span.HOUR, timedelta(days=7)),
        Window("30d", Span.DAY, timedelta(days=30)),
    )
}
DEFAULT_WINDOW = "24h"


@dataclass(slots=True)
class Measured:
    """The sum of an offer's rollups over a window."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    errors: Histogram = field(default_factory=dict)
    maps: dict[str, Histogram] = field(default_factory=lambda: {name: {} for name in MAPS})
    last_at: datetime | None = None


def measured(
    window: Window, *, now: datetime, offers: Collection[int] | None = None
) -> dict[int, Measured]:
    """What was measured of each offer (of all, or of these) in the window that ends now."""
    rollups = MeasurementRollup.objects.filter(
        span=window.span, start__gt=start_of(window.span, now) - window.length, start__lte=now
    )
    if offers is not None:
        rollups = rollups.filter(offer__in=offers)
    by_offer: dict[int, list[MeasurementRollup]] = {}
    for rollup in rollups:
        by_offer.setdefault(rollup.offer_id, []).append(rollup)
    sums = fault_isolation.each(
        by_offer, lambda offer_id: (offer_id, _sum(by_offer[offer_id])), name=lambda n: f"offer {n}"
    )
    return dict(sums)


def _sum(rows: Iterable[MeasurementRollup]) -> Measured:
    rows = list(rows)
    return Measured(
        counts={name: sum(getattr(row, name) for row in rows) for name in COUNTED},
        errors=histograms.merged(row.errors for row in rows),
        maps={name: histograms.merged(getattr(row, name) for row in rows) for name in MAPS},
        last_at=max(row.last_at for row in rows),
    )
