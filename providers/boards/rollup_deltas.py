"""What usage events add to the rollups of their offers, per minute, hour and day. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from billing import outcomes, registers
from billing.books.event_reader import Attempt
from billing.outcomes import Verdict
from providers.boards import weights
from providers.boards.histograms import bucket_of
from providers.errors import AccountDoubted, AuthFailed, OwnTrouble
from providers.models import MeasurementRollup

Span = MeasurementRollup.Span

# Trouble with our own account, whatever the seller's words for it.
OURS = frozenset({OwnTrouble.code, AuthFailed.code, AccountDoubted.code})
HISTOGRAMS = ("ttft_ms_histogram", "output_tps_histogram", "e2e_ms_histogram")
# Flat maps of counts, kept by caller as `providers.boards.weights` reads them; they merge by
# addition.
MAPS = (*HISTOGRAMS, "served")
# No engine drafts more for one step; what claims it does counts for nothing.
DRAFTED_PER_STEP_MAX = 64
SPECULATION = (
    ("drafted_tokens", "drafted"),
    ("accepted_tokens", "accepted"),
    ("target_steps", "steps"),
)
MS_PER_MINUTE = 60_000
MS_PER_HOUR = 60 * MS_PER_MINUTE
Slot = tuple[int, str, datetime]  # offer, span, start


@dataclass(slots=True)
class Delta:
    """What some events add to one rollup."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    maps: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in MAPS}
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
        verdict = outcomes.verdict_of(event.outcome, was_answering=detail.output_bytes > 0)
        counts["requests"] += not event.is_again
        self.last_ms = max(self.last_ms, event.occurred_ms)
        if verdict is Verdict.LEFT:
            counts["cancelled"] += 1
        elif verdict is Verdict.SERVED:
            self._judge(event, succeeded=True)
            self._observe_speeds(event)
        elif verdict is Verdict.FAILED and detail.error not in OURS:
            self._judge(event, succeeded=False)
            self.errors[detail.error or event.outcome] += 1
        if event.is_counted:
            self._count(event, verdict)
        self._observe("ttft_ms_histogram", event, detail.ttft_ms)

    def _judge(self, event: Attempt, *, succeeded: bool) -> None:
        bit = 1 << event.occurred_ms // MS_PER_MINUTE % 60
        self.counts["succeeded" if succeeded else "failed"] += 1
        self.seen_bits |= bit
        if succeeded:
            self.up_bits |= bit

    def _count(self, event: Attempt, verdict: Verdict) -> None:
        """What was paid for, and what was served: the one is not the other."""
        counts = self.counts
        counts["cost_pico"] += event.cost_pico
        if event.cost_pico or verdict in (Verdict.SERVED, Verdict.LEFT):
            counts["paid_output_tokens"] += event.output_tokens - event.expired_output_tokens
        if verdict is not Verdict.SERVED:
            return
        tokens = {
            "input_tokens": event.input_tokens,
            "cached_tokens": event.cached_tokens,
            "output_tokens": event.output_tokens,
        }
        counts.update(tokens)
        self.maps["served"].update(weights.served(event.tenant, **tokens))
        speculation = event.detail.speculation
        if speculation and _is_possible(speculation, event.output_tokens):
            for column, name in SPECULATION:
                counts[column] += speculation.get(name, 0)

    def _observe_speeds(self, event: Attempt) -> None:
        """Tokens a second are of tokens that were counted."""
        self._observe("e2e_ms_histogram", event, event.detail.e2e_ms)
        if event.is_counted:
            self._observe("output_tps_histogram", event, event.detail.output_tps)

    def _observe(self, name: str, event: Attempt, value: float | None) -> None:
        if value is not None and value > 0:
            self.maps[name][f"{weights.caller_of(event.tenant)}.{bucket_of(value)}"] += 1

    def merge(self, other: "Delta") -> None:
        """Add what the other one adds."""
        self.counts.update(other.counts)
        self.errors.update(other.errors)
        for name in MAPS:
            self.maps[name].update(other.maps[name])
        self.last_ms = max(self.last_ms, other.last_ms)


def _is_possible(speculation: Mapping[str, int], output_tokens: int) -> bool:
    """A step gives a token of its own and those that it accepts; the last may give none."""
    drafted, accepted, steps = (speculation.get(name, 0) for _, name in SPECULATION)
    return (
        accepted <= min(drafted, output_tokens)
        and steps <= output_tokens + 1
        and drafted <= steps * DRAFTED_PER_STEP_MAX
    )


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
        start = registers.EPOCH + timedelta(milliseconds=at_ms)
        deltas[offer, span, start] = delta
        if span == Span.HOUR:
            deltas[offer, Span.DAY, start_of(Span.DAY, start)].merge(delta)
    return deltas


def start_of(span: str, at: datetime) -> datetime:
    at = at.replace(second=0, microsecond=0)
    if span == Span.MINUTE:
        return at
    return at.replace(minute=0) if span == Span.HOUR else at.replace(minute=0, hour=0)
