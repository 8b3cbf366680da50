"""Turns usage events into rollups of speed and outcome per offer and minute, hour and day.

Reads the usage streams as the consumer group `measurements`, apart from that of the money. The
last entry of each shard is kept in the transaction of its rollups, so that an entry that is
delivered twice counts once.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import redis
from django.db import DataError, transaction

from billing import collector, events, metering, registers
from billing.events import AttemptEvent
from providers import credentials, histograms
from providers.errors import AccountDoubted, AuthFailed
from providers.histograms import Histogram
from providers.models import MeasurementCursor, MeasurementRollup, Offer
from providers.rollup_deltas import HISTOGRAMS, Delta, Slot, deltas_of, start_of

CREDENTIAL_ERRORS = frozenset({AuthFailed.code, AccountDoubted.code})
CONSUMER = "boards"
BATCH_SIZE = 500
Span = MeasurementRollup.Span
SPEEDS_OVER = timedelta(hours=1)
KEPT: Mapping[str, timedelta] = {
    Span.MINUTE: timedelta(hours=3),
    Span.HOUR: timedelta(days=9),
    Span.DAY: timedelta(days=400),
}

# Columns that add up from one span to the next; the rest is in `rollup_deltas`.
COUNTED = (
    "requests succeeded failed cancelled minutes_seen minutes_up input_tokens cached_tokens "
    "output_tokens cost_pico drafted_tokens accepted_tokens target_steps"
).split()

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One that cannot be read counts for nothing; the drain sets it aside for a person."""

    shard: int
    id: str
    event: AttemptEvent | None


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an offer was in the last hour, on the gateway's clock."""

    ttft_ms_p50: float | None
    output_tps_p50: float | None
    sample: int


@collector.paused()
def record(client: redis.Redis, *, now: datetime) -> int:
    """Take up one batch from every shard's stream; returns how many entries were read."""
    entries = _read(client)
    if entries:
        _take_up(client, entries, now)
    return len(entries)


@transaction.atomic
def _take_up(client: redis.Redis, entries: Sequence[Entry], now: datetime) -> None:
    """All shards in one write: their events are of the same offers. Acknowledged only after
    commit, whoever owns the transaction."""
    cursors = _cursors({entry.shard for entry in entries})
    fresh = [e for e in entries if _order(e.id) > _order(cursors[e.shard].entry_id)]
    _apply_what_can_be(fresh, now)
    for entry in fresh:
        cursor = cursors[entry.shard]
        cursor.entry_id = max(cursor.entry_id, entry.id, key=_order)
    MeasurementCursor.objects.bulk_update(cursors.values(), ["entry_id"])
    transaction.on_commit(lambda: _acknowledge(client, entries))


def _cursors(shards: Iterable[int]) -> dict[int, MeasurementCursor]:
    """How far each shard has been taken up, locked."""
    wanted = sorted(shards)
    MeasurementCursor.objects.bulk_create(
        (MeasurementCursor(shard=shard, entry_id="0-0") for shard in wanted), ignore_conflicts=True
    )
    found = MeasurementCursor.objects.select_for_update().filter(shard__in=wanted)
    return {cursor.shard: cursor for cursor in found.order_by("shard")}


def _acknowledge(client: redis.Redis, entries: Iterable[Entry]) -> None:
    ids: dict[int, list[str]] = defaultdict(list)
    for entry in entries:
        ids[entry.shard].append(entry.id)
    with client.pipeline(transaction=False) as pipe:
        for shard, read in ids.items():
            pipe.xack(_stream(shard), registers.GROUP_MEASUREMENTS, *read)
        pipe.execute()


def _apply_what_can_be(entries: Sequence[Entry], now: datetime) -> None:
    """Where counts do not fit into a rollup, the entry that claims them counts for nothing."""
    found = [entry.event for entry in entries if entry.event is not None]
    if not found:
        return
    try:
        with transaction.atomic():
            _write(deltas_of(found), now)
            _bury_refused_credentials(found)
    except DataError:
        if len(entries) == 1:
            claims = "entry %s of shard %d claims more than can be counted"
            log.warning(claims, entries[0].id, entries[0].shard)
            return
        middle = len(entries) // 2
        _apply_what_can_be(entries[:middle], now)
        _apply_what_can_be(entries[middle:], now)


def _stream(shard: int) -> str:
    return registers.stream_key(registers.tag_of_shard(shard))


def _read(client: redis.Redis) -> list[Entry]:
    """What was delivered before and never acknowledged comes first, then what is new."""
    found: list[Entry] = []
    for start in ("0", ">"):
        seen = {entry.shard for entry in found}
        shards = [shard for shard in range(registers.SHARDS) if shard not in seen]
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
            found += [_entry(shard, raw) for _, batch in reply or () for raw in batch]
    return found


def _entry(shard: int, raw: tuple[bytes, Mapping[bytes, bytes]]) -> Entry:
    entry_id, fields = raw
    try:
        return Entry(shard, entry_id.decode(), events.decode(fields[b"e"]))
    except (KeyError, msgspec.MsgspecError):
        return Entry(shard, entry_id.decode(), None)


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def _bury_refused_credentials(found: Iterable[AttemptEvent]) -> None:
    """By what the wire read in the answer, never by its status: one tenant's moderated prompt is a
    403 as well."""
    refused = {e.offer: e for e in found if e.detail.error in CREDENTIAL_ERRORS}
    refused.update({e.offer: e for e in found if e.detail.error == AuthFailed.code})
    for offer in Offer.objects.filter(pk__in=refused):
        event = refused[offer.pk]
        seen_at = datetime.fromtimestamp(event.occurred_ms / 1000, tz=UTC)
        if event.detail.error == AuthFailed.code:
            reason = f"answered {event.detail.status}: {event.detail.error}"
            credentials.mark_dead(provider_id=offer.provider_id, reason=reason, seen_at=seen_at)
        else:
            credentials.doubt(provider_id=offer.provider_id, seen_at=seen_at)


def _write(deltas: dict[Slot, Delta], now: datetime) -> None:
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


def _count_minute(row: MeasurementRollup, delta: Delta, deltas: Mapping[Slot, Delta]) -> None:
    seen = delta.counts["succeeded"] + delta.counts["failed"] > 0 and row.minutes_seen == 0
    up = delta.counts["succeeded"] > 0 and row.minutes_up == 0
    for span in Span.values:
        counts = deltas[(row.offer_id, span, start_of(span, row.start))].counts
        counts["minutes_seen"] += seen
        counts["minutes_up"] += up


def _merge(row: MeasurementRollup, delta: Delta, now: datetime) -> None:
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
