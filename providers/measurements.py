"""Turns usage events into rollups of speed and outcome per offer and minute, hour and day.

Reads the usage streams as the consumer group `measurements`, apart from that of the money. The
last entry of each shard is kept in the transaction of its rollups, so that an entry that is
delivered twice counts once.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import redis
from django.db import DataError, transaction

from billing import events, metering, registers
from billing.events import AttemptEvent
from providers import credentials, histograms
from providers.histograms import Histogram, bucket_of
from providers.models import MeasurementCursor, MeasurementRollup, Offer

CONSUMER = "boards"
BATCH_SIZE = 500
Span = MeasurementRollup.Span
SPEEDS_OVER = timedelta(hours=1)
KEPT: Mapping[str, timedelta] = {
    Span.MINUTE: timedelta(hours=3),
    Span.HOUR: timedelta(days=9),
    Span.DAY: timedelta(days=400),
}

SUCCEEDED = frozenset({"ok"})
CANCELLED = frozenset({"client_cancelled", "client_stalled"})
# Outcomes that are the offer's own fault; anything else says nothing about its uptime.
FAILED = frozenset({"upstream_error", "upstream_cut", "deadline"})

# With these a provider says that our key is of no use, whatever is asked.
CREDENTIAL_REFUSED = frozenset({401, 402, 403})

# Columns that add up from one span to the next; the rest is derived in `_Delta`.
COUNTED = (
    "requests succeeded failed cancelled minutes_seen minutes_up input_tokens cached_tokens "
    "output_tokens cost_pico drafted_tokens accepted_tokens target_steps"
).split()
HISTOGRAMS = ("ttft_ms_histogram", "output_tps_histogram", "e2e_ms_histogram")
Slot = tuple[int, str, datetime]  # offer, span, start
# An entry that cannot be read counts for nothing; the drain sets it aside for a person.
Entry = tuple[str, AttemptEvent | None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an offer was in the last hour, on the gateway's clock."""

    ttft_ms_p50: float | None
    output_tps_p50: float | None
    sample: int


@dataclass(slots=True)
class _Delta:
    """What a batch adds to one rollup."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    errors: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    histograms: dict[str, dict[str, int]] = field(
        default_factory=lambda: {name: defaultdict(int) for name in HISTOGRAMS}
    )
    last_at: datetime = datetime.min.replace(tzinfo=UTC)


def record(client: redis.Redis, *, now: datetime) -> int:
    """Take up one batch from every shard's stream; returns how many entries were read."""
    read = 0
    for shard, entries in _read(client).items():
        _take_up(client, shard, entries, now)
        read += len(entries)
    return read


@transaction.atomic
def _take_up(client: redis.Redis, shard: int, entries: list[Entry], now: datetime) -> None:
    """Acknowledged only after commit, whoever owns the transaction."""
    _apply_what_can_be(shard, entries, now)
    ids = [entry_id for entry_id, _ in entries]
    transaction.on_commit(lambda: client.xack(_stream(shard), registers.GROUP_MEASUREMENTS, *ids))


def _apply_what_can_be(shard: int, entries: list[Entry], now: datetime) -> None:
    """Where counts do not fit into a rollup, the entry that claims them counts for nothing."""
    try:
        with transaction.atomic():
            _apply(shard, entries, now)
    except DataError:
        if len(entries) == 1:
            entry_id = entries[0][0]
            log.warning("entry %s of shard %d claims more than can be counted", entry_id, shard)
            _apply(shard, [(entry_id, None)], now)
            return
        middle = len(entries) // 2
        _apply_what_can_be(shard, entries[:middle], now)
        _apply_what_can_be(shard, entries[middle:], now)


def _stream(shard: int) -> str:
    return registers.stream_key(registers.tag_of_shard(shard))


def _read(client: redis.Redis) -> dict[int, list[Entry]]:
    """What was delivered before and never acknowledged comes first, then what is new."""
    found: dict[int, list[Entry]] = {}
    for start in ("0", ">"):
        shards = [shard for shard in range(registers.SHARDS) if shard not in found]
        with client.pipeline(transaction=False) as pipe:
            for shard in shards:
                pipe.xreadgroup(
                    registers.GROUP_MEASUREMENTS, CONSUMER, {_stream(shard): start}, BATCH_SIZE
                )
            replies = pipe.execute(raise_on_error=False)
        if any(isinstance(reply, redis.ResponseError) for reply in replies):
            metering.ensure_groups(client)
            return found
        for shard, reply in zip(shards, replies, strict=True):
            entries = [_entry(raw) for _, batch in reply or () for raw in batch]
            if entries:
                found[shard] = entries
    return found


def _entry(raw: tuple[bytes, Mapping[bytes, bytes]]) -> Entry:
    entry_id, fields = raw
    try:
        return entry_id.decode(), events.decode(fields[b"e"])
    except (KeyError, msgspec.MsgspecError):
        return entry_id.decode(), None


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _apply(shard: int, entries: Iterable[Entry], now: datetime) -> None:
    cursor, _ = MeasurementCursor.objects.select_for_update().get_or_create(
        shard=shard, defaults={"entry_id": "0-0"}
    )
    taken = _order(cursor.entry_id)
    fresh = [(entry_id, event) for entry_id, event in entries if _order(entry_id) > taken]
    if not fresh:
        return
    found = [event for _, event in fresh if event is not None]
    _write(_deltas(found), now)
    _bury_refused_credentials(found)
    cursor.entry_id = max((entry_id for entry_id, _ in fresh), key=_order)
    cursor.save(update_fields=["entry_id"])


def _bury_refused_credentials(found: Iterable[AttemptEvent]) -> None:
    refused = {e.offer: e for e in found if e.detail.status in CREDENTIAL_REFUSED}
    for offer in Offer.objects.filter(pk__in=refused):
        event = refused[offer.pk]
        credentials.mark_dead(
            provider_id=offer.provider_id,
            reason=f"answered {event.detail.status}: {event.detail.error}",
            seen_at=datetime.fromtimestamp(event.occurred_ms / 1000, tz=UTC),
        )


def _deltas(found: Iterable[AttemptEvent]) -> dict[Slot, _Delta]:
    deltas: dict[Slot, _Delta] = defaultdict(_Delta)
    for event in found:
        at = datetime.fromtimestamp(event.occurred_ms / 1000, tz=UTC)
        for span in Span.values:
            _add(deltas[(event.offer, span, start_of(span, at))], event, at)
    return deltas


def start_of(span: str, at: datetime) -> datetime:
    at = at.replace(second=0, microsecond=0)
    if span == Span.MINUTE:
        return at
    return at.replace(minute=0) if span == Span.HOUR else at.replace(minute=0, hour=0)


def _add(delta: _Delta, event: AttemptEvent, at: datetime) -> None:
    counts, detail = delta.counts, event.detail
    counts["requests"] += 1
    counts["cost_pico"] += event.tenant_cost_pico
    delta.last_at = max(delta.last_at, at)
    if event.outcome in SUCCEEDED:
        counts["succeeded"] += 1
    elif event.outcome in CANCELLED:
        counts["cancelled"] += 1
    else:
        delta.errors[detail.error or event.outcome] += 1
        counts["failed"] += event.outcome in FAILED
    if event.usage is not None:
        counts["input_tokens"] += event.usage.input_tokens
        counts["cached_tokens"] += event.usage.cache_read_tokens
        counts["output_tokens"] += event.usage.output_tokens
    for column, name in SPECULATION:
        counts[column] += (detail.speculation or {}).get(name, 0)
    _observe(delta, "ttft_ms_histogram", detail.ttft_ms)
    if event.outcome in SUCCEEDED:
        _observe(delta, "output_tps_histogram", detail.output_tps)
        _observe(delta, "e2e_ms_histogram", detail.e2e_ms)


SPECULATION = (
    ("drafted_tokens", "drafted"),
    ("accepted_tokens", "accepted"),
    ("target_steps", "steps"),
)


def _observe(delta: _Delta, name: str, value: float | None) -> None:
    if value is not None and value > 0:
        delta.histograms[name][bucket_of(value)] += 1


def _write(deltas: dict[Slot, _Delta], now: datetime) -> None:
    known = set(Offer.objects.filter(pk__in={slot[0] for slot in deltas}).values_list(flat=True))
    deltas = {slot: delta for slot, delta in deltas.items() if slot[0] in known}
    rows = _rows_for(deltas, now)
    # Minutes first: whether one is seen or up for the first time is what hours and days count.
    for slot in sorted(deltas, key=lambda slot: Span.values.index(slot[1])):
        row, delta = rows[slot], deltas[slot]
        if slot[1] == Span.MINUTE:
            _count_minute(row, delta, deltas)
        _merge(row, delta, now)
    for row in rows.values():
        row.pk = None
    MeasurementRollup.objects.bulk_create(
        rows.values(),
        update_conflicts=True,
        unique_fields=["offer", "span", "start"],
        update_fields=[*COUNTED, *HISTOGRAMS, "errors", "last_at", "updated_at"],
    )


def _rows_for(deltas: Iterable[Slot], now: datetime) -> dict[Slot, MeasurementRollup]:
    slots = set(deltas)
    existing = MeasurementRollup.objects.select_for_update().filter(
        offer__in={offer for offer, _, _ in slots}, start__in={start for _, _, start in slots}
    )
    rows = {(row.offer_id, row.span, row.start): row for row in existing}
    return {
        slot: rows.get(slot)
        or MeasurementRollup(
            offer_id=slot[0], span=slot[1], start=slot[2], last_at=slot[2], updated_at=now
        )
        for slot in slots
    }


def _count_minute(row: MeasurementRollup, delta: _Delta, deltas: Mapping[Slot, _Delta]) -> None:
    seen = delta.counts["succeeded"] + delta.counts["failed"] > 0 and row.minutes_seen == 0
    up = delta.counts["succeeded"] > 0 and row.minutes_up == 0
    for span in Span.values:
        counts = deltas[(row.offer_id, span, start_of(span, row.start))].counts
        counts["minutes_seen"] += seen
        counts["minutes_up"] += up


def _merge(row: MeasurementRollup, delta: _Delta, now: datetime) -> None:
    for column in COUNTED:
        setattr(row, column, getattr(row, column) + delta.counts[column])
    row.errors = histograms.merged([row.errors, delta.errors])
    for name in HISTOGRAMS:
        setattr(row, name, histograms.merged([getattr(row, name), delta.histograms[name]]))
    row.last_at = max(row.last_at, delta.last_at)
    row.updated_at = now


def forget_old(*, now: datetime) -> int:
    """Delete rollups that no window reads any more."""
    deleted = 0
    for span, kept in KEPT.items():
        deleted += MeasurementRollup.objects.filter(span=span, start__lt=now - kept).delete()[0]
    return deleted


def speeds(now: datetime | None = None) -> dict[int, Speed]:
    """The median speed of every offer that served in the last hour, by offer id."""
    now = now or datetime.now(UTC)
    rows = MeasurementRollup.objects.filter(
        span=Span.MINUTE, start__gte=start_of(Span.MINUTE, now - SPEEDS_OVER)
    ).values_list("offer_id", "ttft_ms_histogram", "output_tps_histogram")
    found: dict[int, list[tuple[Histogram, Histogram]]] = defaultdict(list)
    for offer_id, ttft_ms, output_tps in rows:
        found[offer_id].append((ttft_ms, output_tps))
    return {offer_id: _speed(pairs) for offer_id, pairs in found.items()}


def _speed(pairs: list[tuple[Histogram, Histogram]]) -> Speed:
    ttft_ms = histograms.merged(pair[0] for pair in pairs)
    output_tps = histograms.merged(pair[1] for pair in pairs)
    return Speed(
        ttft_ms_p50=histograms.percentile(ttft_ms, 0.5),
        output_tps_p50=histograms.percentile(output_tps, 0.5),
        sample=histograms.size(ttft_ms),
    )
