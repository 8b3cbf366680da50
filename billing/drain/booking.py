"""Books a batch of the drain: its events are written and posted in one transaction of PostgreSQL.

What it returns is to be done in Redis once that has committed.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.db import DataError, IntegrityError, transaction

from billing import registers
from billing.books import claims, ledger
from billing.drain import postings, usage_rows
from billing.drain.acknowledgement import Acknowledgement
from billing.drain.assessment import Assessed
from billing.drain.pinned_prices import PinnedPrices
from billing.drain.rated_batches import Batch, Rated, rate_now
from billing.drain.usage_rows import Known, Written
from billing.holding.quota_registers import QuotaRegisters
from billing.holding.usage_stream import StreamEntry, Unreadable
from billing.invariant_results import report
from billing.models import Tenant
from billing.money import PICO_PER_NANO

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Drained:
    """What a drain did. `left` means that it stopped at its limit, not at the stream's end."""

    read: int = 0
    posted: int = 0
    quarantined: int = 0
    known: int = 0
    unreadable: int = 0
    left: bool = False

    def add(self, other: "Drained") -> None:
        self.read += other.read
        self.posted += other.posted
        self.quarantined += other.quarantined
        self.known += other.known
        self.unreadable += other.unreadable
        self.left = self.left or other.left


@dataclass(frozen=True, slots=True)
class Committed:
    """Entries of one transaction, how they stood before it, and the caps they belong to."""

    items: Sequence[postings.Posted]
    known: Mapping[str, Known]
    quotas: QuotaRegisters


@dataclass(slots=True)
class Booked:
    """What was done, what is to be acknowledged, and what is to be set aside."""

    counts: Drained
    committed: list[Committed] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def add(self, other: "Booked") -> None:
        self.counts.add(other.counts)
        self.committed += other.committed
        self.unreadable += other.unreadable

    def acknowledgements(self) -> list[Acknowledgement]:
        """Asks nobody, so that the thread which talks to Redis can work it out."""
        return [
            _acknowledgement(entry, result, batch.known.get(entry.id), batch.quotas)
            for batch in self.committed
            for entry, result, _ in batch.items
        ]


def book(shard: int, batch: Batch, pinned: PinnedPrices, *, now: datetime) -> Booked:
    """Book what can be, and commit; the caller has the shard's lock and no transaction."""
    unknown, entries = _split_unknown_tenants(shard, batch.entries)
    booked = Booked(Drained(read=batch.read), unreadable=[*batch.unreadable, *unknown])
    if entries:
        rated = None if unknown else batch.rated
        booked.add(_book(shard, entries, rated, pinned, now))
    booked.counts.unreadable = len(booked.unreadable)
    if booked.unreadable:
        _complain(booked.unreadable, now)
    return booked


def _book(
    shard: int,
    entries: Sequence[StreamEntry],
    rated: Rated | None,
    pinned: PinnedPrices,
    now: datetime,
) -> Booked:
    """A batch that PostgreSQL refuses is halved until the entry at fault stands alone."""
    try:
        # Durable: what is acknowledged after must have been committed, not just released.
        with transaction.atomic(durable=True):
            return _post(shard, rated or rate_now(entries, pinned), now)
    except (DataError, IntegrityError) as problem:
        if len(entries) == 1:
            reason = f"{type(problem).__name__}: {problem}"[:300]
            refused = Unreadable(entries[0].id, reason, _as_fields(entries[0]))
            return Booked(Drained(), unreadable=[refused])
    middle = len(entries) // 2
    booked = _book(shard, entries[:middle], None, pinned, now)
    booked.add(_book(shard, entries[middle:], None, pinned, now))
    return booked


def _post(shard: int, rated: Rated, now: datetime) -> Booked:
    """Write and post what is rated, in the caller's transaction."""
    entries = [entry for entry, _, _ in rated.items]
    tenants = sorted({entry.event.tenant for entry in entries})
    transfer_ids = dict(zip(tenants, ledger.new_ids(len(tenants)), strict=True))
    written = usage_rows.write(entries, rated.rows, transfer_ids, drained_at=now)
    claims.open_new(entries, written.new)
    posted = [
        item for item in rated.items if item[0].id in written.new and not item[1].quarantine_reason
    ]
    drafts = postings.drafts(posted, transfer_ids)
    if drafts:
        ledger.post_all(drafts)
    _report(rated.items, written, now)
    return Booked(
        Drained(
            posted=len(posted),
            quarantined=len(written.new) - len(posted),
            known=len(written.known),
        ),
        [Committed(rated.items, written.known, QuotaRegisters.of(tenants, shard))],
    )


def _acknowledgement(
    entry: StreamEntry, result: Assessed, known: Known | None, quotas: QuotaRegisters
) -> Acknowledgement:
    """How far each register is off: debited at the settle, and due by what is now in Postgres."""
    debited_pico = entry.debit_nano * PICO_PER_NANO
    due_pico = debited_pico if result.quarantine_reason else result.tenant_pico
    if known is not None:
        # Another entry of the same attempt was posted: this one was one debit too many.
        due_pico = known.debited_pico if known.same_entry else 0
    return Acknowledgement(
        entry_id=entry.id,
        tenant=entry.event.tenant,
        debited_keys=entry.keys,
        difference_pico=due_pico - debited_pico,
        missed_keys=quotas.missing(entry),
        missed_pico=due_pico,
    )


def _report(assessed: Sequence[postings.Posted], written: Written, now: datetime) -> None:
    for entry, result, _ in assessed:
        known = written.known.get(entry.id)
        if known is not None and not known.same_body:
            logger.error("%s came twice with different bodies", entry.name)
            report("one event, one body", False, f"{entry.name} differs from what is posted", now)
        if known is not None:
            continue
        if result.quarantine_reason:
            logger.error("%s is quarantined: %s", entry.name, result.quarantine_reason)
        if entry.event.claimed:
            logger.error("%s of %s %s", entry.name, entry.event.supplier, entry.event.problem)
        if result.overage_pico:
            logger.warning("%s: %d pico-dollars for review", entry.name, result.overage_pico)


def _split_unknown_tenants(
    shard: int, entries: Sequence[StreamEntry]
) -> tuple[list[Unreadable], list[StreamEntry]]:
    """Events of tenants that are not of this shard, or do not exist."""
    tenants = {entry.event.tenant for entry in entries}
    known = set(Tenant.objects.filter(pk__in=tenants).values_list("pk", flat=True))
    known = {tenant for tenant in known if registers.shard_of(tenant) == shard}
    unknown = [
        Unreadable(entry.id, "no such tenant in this shard", _as_fields(entry))
        for entry in entries
        if entry.event.tenant not in known
    ]
    return unknown, [entry for entry in entries if entry.event.tenant in known]


def _as_fields(entry: StreamEntry) -> dict[bytes, bytes]:
    return {b"request_id": entry.event.request_id.encode(), b"c": str(entry.debit_nano).encode()}


def _complain(unreadable: Sequence[Unreadable], now: datetime) -> None:
    for item in unreadable:
        logger.error("stream entry %s is unreadable: %s", item.id, item.reason)
    first = unreadable[0]
    report("every event readable", False, f"{first.id}: {first.reason}", now)
