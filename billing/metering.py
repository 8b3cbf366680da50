"""The drain: usage events from Redis into Postgres, posted exactly once.

A batch is rated again, written and posted in one transaction, and acknowledged after it has
committed; the acknowledging script corrects the registers by the exact difference. A batch that
was committed and not acknowledged is read again and found to be known.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import redis
from django.db import DataError, IntegrityError, transaction

from billing import ledger, locks, postings, registers, usage_rows
from billing.acknowledgement import Acknowledgement, acknowledge
from billing.assessment import Assessed
from billing.invariant_results import report
from billing.models import Tenant
from billing.money import PICO_PER_NANO
from billing.pinned_prices import PinnedPrices
from billing.quota_registers import QuotaRegisters
from billing.rated_batches import Batch, Rated, rate_now
from billing.read_ahead import ReadAhead, reading_thread
from billing.usage_rows import Known, Written
from billing.usage_stream import (
    StreamEntry,
    Unreadable,
    ensure_groups,
    last_delivered,
    oldest_unread_ms,
    set_aside,
    trim,
)

__all__ = ["Drained", "drain", "drain_all", "ensure_groups", "lag_ms", "last_delivered"]

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 4_000
# A run of the task ends here even if the stream does not: the next one goes on.
BATCHES_PER_RUN_MAX: Final = 25


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


def drain_all(client: redis.Redis, *, now: datetime) -> Drained:
    """Drain every shard that has something, and that nobody else is draining.

    While the last batch of one shard is posted, the first of the next is read, under its lock.
    """
    done = Drained()
    # Locks are let go of only once nothing more is read under them, whatever happens.
    with ExitStack() as locks_held, reading_thread() as thread:
        run = _Run(client, now, PinnedPrices(), thread)
        opened = _opened(run, locks_held)
        following = next(opened, None)
        while following is not None:
            (lock, stream), following = following, None
            for batch in stream.batches():
                if stream.is_last:
                    following = next(opened, None)
                done.add(_drain_batch(run, stream.shard, batch))
            done.add(_ended(run, stream))
            lock.close()
            following = following or next(opened, None)
    return done


def _opened(run: "_Run", locks_held: ExitStack) -> Iterator[tuple[ExitStack, ReadAhead]]:
    """Shards that were free, each with its lock and its first batch on its way."""
    for shard in _busy_shards(run.client):
        lock = locks_held.enter_context(ExitStack())
        if lock.enter_context(locks.shard(shard)):
            yield lock, run.read_ahead(shard, BATCH_SIZE)


def _busy_shards(client: redis.Redis) -> list[int]:
    with client.pipeline(transaction=False) as pipe:
        for shard in range(registers.SHARDS):
            pipe.xlen(registers.stream_key(registers.tag_of_shard(shard)))
        lengths = pipe.execute()
    return [shard for shard, length in enumerate(lengths) if length]


def lag_ms(client: redis.Redis, *, now: datetime) -> int:
    """The age of the oldest entry that is not drained; 0 if there is none."""
    oldest = [
        entry_ms
        for shard in _busy_shards(client)
        if (entry_ms := oldest_unread_ms(client, shard)) is not None
    ]
    return max(int(now.timestamp() * 1000) - min(oldest), 0) if oldest else 0


def drain(
    client: redis.Redis, shard: int, *, now: datetime, batch_size: int = BATCH_SIZE
) -> Drained:
    """Drain one shard; the caller holds its lock."""
    done = Drained()
    with reading_thread() as thread:
        run = _Run(client, now, PinnedPrices(), thread)
        stream = run.read_ahead(shard, batch_size)
        for batch in stream.batches():
            done.add(_drain_batch(run, shard, batch))
        done.add(_ended(run, stream))
    return done


@dataclass(frozen=True, slots=True)
class _Run:
    client: redis.Redis
    now: datetime
    pinned: PinnedPrices
    thread: ThreadPoolExecutor

    def read_ahead(self, shard: int, batch_size: int) -> ReadAhead:
        return ReadAhead(
            self.thread,
            self.client,
            shard,
            self.pinned,
            count=batch_size,
            batches_max=BATCHES_PER_RUN_MAX,
        )


def _ended(run: _Run, stream: ReadAhead) -> Drained:
    if stream.found:
        trim(run.client, stream.shard)
    return Drained(left=not stream.ended)


def _drain_batch(run: _Run, shard: int, batch: Batch) -> Drained:
    strangers, entries = _split_strangers(shard, batch.entries)
    done = Drained(read=batch.read)
    rated = None if strangers else batch.rated
    acknowledgements, unpostable = _book_what_can_be(run, shard, entries, rated, done)
    acknowledge(run.client, shard, acknowledgements)
    unreadable = [*batch.unreadable, *strangers, *unpostable]
    done.unreadable = len(unreadable)
    if unreadable:
        _complain(unreadable, run.now)
        set_aside(run.client, shard, unreadable)
    return done


def _book_what_can_be(
    run: _Run, shard: int, entries: Sequence[StreamEntry], rated: Rated | None, done: Drained
) -> tuple[list[Acknowledgement], list[Unreadable]]:
    """Book a batch; one that PostgreSQL refuses is halved until the entry at fault stands alone."""
    if not entries:
        return [], []
    try:
        # Durable: what is acknowledged after must have been committed, not just released.
        with transaction.atomic(durable=True):
            result = _book(run, shard, rated or rate_now(entries, run.pinned))
    except (DataError, IntegrityError) as problem:
        if len(entries) == 1:
            reason = f"{type(problem).__name__}: {problem}"[:300]
            return [], [Unreadable(entries[0].id, reason, _as_fields(entries[0]))]
        middle = len(entries) // 2
        first = _book_what_can_be(run, shard, entries[:middle], None, done)
        second = _book_what_can_be(run, shard, entries[middle:], None, done)
        return first[0] + second[0], first[1] + second[1]
    done.add(result.counts)
    return result.acknowledgements, []


def _split_strangers(
    shard: int, entries: Sequence[StreamEntry]
) -> tuple[list[Unreadable], list[StreamEntry]]:
    """Events of tenants that are not of this shard, or do not exist."""
    tenants = {entry.event.tenant for entry in entries}
    known = set(Tenant.objects.filter(pk__in=tenants).values_list("pk", flat=True))
    known = {tenant for tenant in known if registers.shard_of(tenant) == shard}
    strangers = [
        Unreadable(entry.id, "no such tenant in this shard", _as_fields(entry))
        for entry in entries
        if entry.event.tenant not in known
    ]
    return strangers, [entry for entry in entries if entry.event.tenant in known]


def _as_fields(entry: StreamEntry) -> dict[bytes, bytes]:
    return {b"request_id": entry.event.request_id.encode(), b"c": str(entry.debit_nano).encode()}


@dataclass(frozen=True, slots=True)
class _Booked:
    counts: Drained
    acknowledgements: list[Acknowledgement]


def _book(run: _Run, shard: int, rated: Rated) -> _Booked:
    """Write and post a batch; the result is to be acknowledged once it has committed."""
    entries = [entry for entry, _, _ in rated.items]
    tenants = sorted({entry.event.tenant for entry in entries})
    transfer_ids = dict(zip(tenants, ledger.new_ids(len(tenants)), strict=True))
    written = usage_rows.write(entries, rated.rows, transfer_ids, drained_at=run.now)
    posted = [
        item for item in rated.items if item[0].id in written.new and not item[1].quarantine_reason
    ]
    drafts = postings.drafts(posted, transfer_ids)
    if drafts:
        ledger.post_all(drafts)
    _report(rated.items, written, run.now)
    quotas = QuotaRegisters.of(tenants, shard)
    return _Booked(
        Drained(
            posted=len(posted),
            quarantined=len(written.new) - len(posted),
            known=len(written.known),
        ),
        [
            _acknowledgement(entry, result, written.known.get(entry.id), quotas)
            for entry, result, _ in rated.items
        ],
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
        if result.overage_pico:
            logger.warning("%s: %d pico-dollars for review", entry.name, result.overage_pico)


def _complain(unreadable: Sequence[Unreadable], now: datetime) -> None:
    for item in unreadable:
        logger.error("stream entry %s is unreadable: %s", item.id, item.reason)
    first = unreadable[0]
    report("every event readable", False, f"{first.id}: {first.reason}", now)
