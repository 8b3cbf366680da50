"""What usage events add to the rollups of their offers, per minute, hour and day. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from billing.events import AttemptEvent
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

    @property
    def last_at(self) -> datetime:
        return datetime.fromtimestamp(self.last_ms / 1000, tz=UTC)

    def add(self, event: AttemptEvent) -> None:
        counts, detail = self.counts, event.detail
        counts["requests"] += 1
        counts["cost_pico"] += event.tenant_cost_pico
        self.last_ms = max(self.last_ms, event.occurred_ms)
        if event.outcome in SUCCEEDED:
            counts["succeeded"] += 1
        elif event.outcome in CANCELLED:
            counts["cancelled"] += 1
        else:
            self.errors[detail.error or event.outcome] += 1
            is_ours = detail.error == OwnTrouble.code
            counts["failed"] += event.outcome in FAILED and not is_ours
        if event.usage is not None:
            counts["input_tokens"] += event.usage.input_tokens
            counts["cached_tokens"] += event.usage.cache_read_tokens
            counts["output_tokens"] += event.usage.output_tokens
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


def deltas_of(found: Iterable[AttemptEvent]) -> dict[Slot, Delta]:
    """By offer, span and start: each event is taken up once, in its minute, and minutes are added
    up to hours and days."""
    minutes: dict[tuple[int, int], Delta] = defaultdict(Delta)
    for event in found:
        minutes[event.offer, event.occurred_ms // MS_PER_MINUTE].add(event)
    deltas: dict[Slot, Delta] = defaultdict(Delta)
    for (offer, minute), delta in minutes.items():
        at = datetime.fromtimestamp(minute * MS_PER_MINUTE // 1000, tz=UTC)
        for span in Span.values:
            deltas[offer, span, start_of(span, at)].merge(delta)
    return deltas


def start_of(span: str, at: datetime) -> datetime:
    at = at.replace(second=0, microsecond=0)
    if span == Span.MINUTE:
        return at
    return at.replace(minute=0) if span == Span.HOUR else at.replace(minute=0, hour=0)
