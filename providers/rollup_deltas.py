"""What usage events add to the rollups of their offers, per minute, hour and day. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from billing.event_reader import Attempt
from providers.errors import OwnTrouble
from providers.histograms import bucket_of
from providers.models import MeasurementRollup

Span = MeasurementRollup.Span

SUCCEEDED = frozenset({"ok"})
CANCELLED = frozenset({"client_cancelled", "client_stalled"})
# Outcomes that are the offer's own fault; anything else says nothing about its uptime.
FAILED = frozenset({"upstream_error", "upstream_cut", "deadline"})

HISTOGRAMS = ("ttft_ms_histogram", "output_tps_histogram", "e2e_ms_histogram")
SPECULATION = (
    ("drafted_tokens", "drafted"),
    ("accepted_tokens", "accepted"),
    ("target_steps", "steps"),
)
MS_PER_MINUTE = 60_000
MS_PER_HOUR = 60 * MS_PER_MINUTE
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Slot = tuple[int, str, datetime]  # offer, span, start


@dataclass(slots=True)
class Delta:
    """What some events add to one rollup."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in HISTOGRAMS}
    )
    last_ms: int = 0
    # Minutes of the hour with a verdict, and those in which an attempt succeeded, a bit each.
    seen_bits: int = 0
    up_bits: int = 0

    @property
    def last_at(self) -> datetime:
        return datetime.fromtimestamp(self.last_ms / 1000, tz=UTC)

    def add(self, event: Attempt) -> None:
        counts, detail = self.counts, event.detail
        bit = 1 << event.occurred_ms // MS_PER_MINUTE % 60
        counts["requests"] += 1
        counts["cost_pico"] += event.cost_pico
        self.last_ms = max(self.last_ms, event.occurred_ms)
        if event.outcome in SUCCEEDED:
            counts["succeeded"] += 1
            self.seen_bits |= bit
            self.up_bits |= bit
        elif event.outcome in CANCELLED:
            counts["cancelled"] += 1
        else:
            self.errors[detail.error or event.outcome] += 1
            is_ours = detail.error == OwnTrouble.code
            if event.outcome in FAILED and not is_ours:
                counts["failed"] += 1
                self.seen_bits |= bit
        counts["input_tokens"] += event.input_tokens
        counts["cached_tokens"] += event.cached_tokens
        counts["output_tokens"] += event.output_tokens
        if detail.speculation:
            for column, name in SPECULATION:
                counts[column] += detail.speculation.get(name, 0)
        self._observe("ttft_ms_histogram", detail.ttft_ms)
        if event.outcome in SUCCEEDED:
            self._observe("output_tps_histogram", detail.output_tps)
            self._observe("e2e_ms_histogram", detail.e2e_ms)

    def _observe(self, name: str, value: float | None) -> None:
        if value is not None and value > 0:
            self.histograms[name][bucket_of(value)] += 1

    def merge(self, other: "Delta") -> None:
        """Add what the other one adds."""
        self.counts.update(other.counts)
        self.errors.update(other.errors)
        for name in HISTOGRAMS:
            self.histograms[name].update(other.histograms[name])
        self.last_ms = max(self.last_ms, other.last_ms)


def deltas_of(found: Iterable[Attempt], *, minutes_since: datetime) -> dict[Slot, Delta]:
    """By offer, span and start: each event is taken up in its hour, and in its minute unless that
    is older than minutes are kept; hours are added up to days."""
    since_ms = minutes_since.timestamp() * 1000
    short: dict[tuple[int, str, int], Delta] = defaultdict(Delta)
    for event in found:
        short[event.offer, Span.HOUR, event.occurred_ms // MS_PER_HOUR * MS_PER_HOUR].add(event)
        if event.occurred_ms >= since_ms:
            minute_ms = event.occurred_ms // MS_PER_MINUTE * MS_PER_MINUTE
            short[event.offer, Span.MINUTE, minute_ms].add(event)
    deltas: dict[Slot, Delta] = defaultdict(Delta)
    for (offer, span, at_ms), delta in short.items():
        start = EPOCH + timedelta(milliseconds=at_ms)
        deltas[offer, span, start] = delta
        if span == Span.HOUR:
            deltas[offer, Span.DAY, start_of(Span.DAY, start)].merge(delta)
    return deltas


def start_of(span: str, at: datetime) -> datetime:
    at = at.replace(second=0, microsecond=0)
    if span == Span.MINUTE:
        return at
    return at.replace(minute=0) if span == Span.HOUR else at.replace(minute=0, hour=0)
