"""Turns usage events into rollups of speed and outcome per offer and minute, hour and day; what
they say of sellers' tokenizers is kept beside them (`counted_texts`).

Reads what the drain has written, in the order of the events' ids, with a position of its own that
is kept in the transaction of the rollups: each event counts once, and a reader that is behind, or
was away, holds nobody up. What it costs grows with the events and with the hours they lie in.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from django.db import DataError, transaction

from billing.books import event_reader
from billing.books.event_reader import Attempt
from billing.drain import garbage_collection
from providers.boards import counted_texts, histograms, weights
from providers.boards.histograms import Histogram
from providers.boards.rollup_deltas import MAPS, Delta, Slot, deltas_of, start_of
from providers.errors import AccountDoubted, AuthFailed
from providers.market import credentials
from providers.models import MeasurementCursor, MeasurementRollup, Offer

BATCH_SIZE = 10_000
Span = MeasurementRollup.Span
SPEEDS_OVER = timedelta(hours=1)
HALF = Fraction(1, 2)
# A refusal of long ago says nothing of the credential of today.
TELLS_OF_CREDENTIAL = timedelta(minutes=15)
KEPT: Mapping[str, timedelta] = {
    Span.MINUTE: timedelta(hours=3),
    Span.HOUR: timedelta(days=9),
    Span.DAY: timedelta(days=400),
}

CREDENTIAL_ERRORS = frozenset({AuthFailed.code, AccountDoubted.code})

# Columns that add up from one span to the next; the rest is in `rollup_deltas`.
COUNTED = (
    "requests succeeded failed cancelled minutes_seen minutes_up input_tokens cached_tokens "
    "output_tokens paid_output_tokens cost_pico drafted_tokens accepted_tokens target_steps"
).split()

BITS = ("seen_bits", "up_bits")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an offer was in the last hour, on the gateway's clock."""

    ttft_ms_p50: float | None
    output_tps_p50: float | None
    sample: int


@garbage_collection.paused()
def record(*, now: datetime) -> int:
    """Take up one batch of events; returns how many were read."""
    with transaction.atomic():
        MeasurementCursor.objects.get_or_create(pk=1)
        cursor = MeasurementCursor.objects.select_for_update().get(pk=1)
        found = event_reader.after(int(cursor.event_id), most=BATCH_SIZE)
        if found:
            _apply_what_can_be(found, now)
            counted_texts.take_up(found)
            cursor.event_id = found[-1].id
            cursor.save(update_fields=["event_id"])
    return len(found)


def _apply_what_can_be(found: Sequence[Attempt], now: datetime) -> None:
    """Where counts do not fit into a rollup, the event that claims them counts for nothing."""
    try:
        with transaction.atomic():
            _write(deltas_of(found, minutes_since=now - KEPT[Span.MINUTE]), now)
            _bury_refused_credentials(found, now)
    except DataError:
        if len(found) == 1:
            log.warning("usage event %s claims more than can be counted", found[0].id)
            return
        middle = len(found) // 2
        _apply_what_can_be(found[:middle], now)
        _apply_what_can_be(found[middle:], now)


def _bury_refused_credentials(found: Iterable[Attempt], now: datetime) -> None:
    """By what the wire read in the answer, never by its status: one tenant's moderated prompt is a
    403 as well."""
    since_ms = (now - TELLS_OF_CREDENTIAL).timestamp() * 1000
    late = [e for e in found if e.detail.error in CREDENTIAL_ERRORS and e.occurred_ms >= since_ms]
    refused = {e.offer: e for e in late}
    refused.update({e.offer: e for e in late if e.detail.error == AuthFailed.code})
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
    # Days last: they count the minutes that are new to their hours.
    for slot in sorted(deltas, key=lambda slot: Span.values.index(slot[1])):
        row, delta = rows[slot], deltas[slot]
        if slot[1] != Span.DAY:
            _count_minutes(row, delta)
        if slot[1] == Span.HOUR:
            day = deltas[row.offer_id, Span.DAY, start_of(Span.DAY, row.start)]
            for name in ("minutes_seen", "minutes_up"):
                day.counts[name] += delta.counts[name]
        _merge(row, delta, now)
    for row in rows.values():
        row.pk = None
    MeasurementRollup.objects.bulk_create(
        rows.values(),
        update_conflicts=True,
        unique_fields=["offer", "span", "start"],
        update_fields=[*COUNTED, *MAPS, *BITS, "errors", "last_at", "updated_at"],
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


def _count_minutes(row: MeasurementRollup, delta: Delta) -> None:
    """Those that no event before was in."""
    delta.counts["minutes_seen"] = (delta.seen_bits & ~row.seen_bits).bit_count()
    delta.counts["minutes_up"] = (delta.up_bits & ~row.up_bits).bit_count()
    row.seen_bits |= delta.seen_bits
    row.up_bits |= delta.up_bits


def _merge(row: MeasurementRollup, delta: Delta, now: datetime) -> None:
    for column in COUNTED:
        setattr(row, column, getattr(row, column) + delta.counts[column])
    row.errors = histograms.merged([row.errors, delta.errors])
    for name in MAPS:
        setattr(row, name, histograms.merged([getattr(row, name), delta.maps[name]]))
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
        ttft_ms_p50=histograms.percentile(weights.samples(ttft_ms), HALF),
        output_tps_p50=histograms.percentile(weights.samples(output_tps), HALF),
        sample=histograms.size(ttft_ms),
    )
