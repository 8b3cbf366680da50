"""The drain: usage events from Redis into Postgres, posted exactly once.

A batch is rated again, written and posted in one transaction, and acknowledged after it has
committed; the acknowledging script corrects the registers by the exact difference. A batch that
was committed and not acknowledged is read again and found to be known.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

import redis

from billing import fault_isolation, locks, registers
from billing.drain import booking, garbage_collection
from billing.drain.acknowledgement import acknowledge, epoch_of
from billing.drain.booking import Booked, Drained
from billing.drain.pinned_prices import PinnedPrices
from billing.drain.read_ahead import Read, ReadAhead
from billing.drain.redis_thread import Sent, redis_thread
from billing.holding.usage_stream import (
    ensure_groups,
    last_delivered,
    oldest_unread_ms,
    set_aside,
    trim,
)

__all__ = ["Drained", "drain", "drain_all", "ensure_groups", "lag_ms", "last_delivered"]

BATCH_SIZE: Final = 4_000
# A run of the task ends here even if the stream does not: the next one goes on.
BATCHES_PER_RUN_MAX: Final = 25


@garbage_collection.paused()
def drain_all(client: redis.Redis, *, now: datetime) -> Drained:
    """Drain every shard that has something, and that nobody else is draining; one that cannot be
    drained is told of when all others were.

    While the last batches of one shard are posted, the first of the next is read, under its lock.
    """
    locks_held: dict[int, ExitStack] = {}
    # Locks are let go of only once nothing more is done under them, however it ends.
    with ExitStack() as releases, redis_thread() as thread:
        shards = _locked(_busy_shards(client), locks_held, releases)
        run = _Run(client, now, thread)
        done = _drain(run, shards, leave=lambda shard: locks_held.pop(shard).close())
    fault_isolation.tell(run.failures)
    return done


def _locked(
    shards: Iterable[int], held: dict[int, ExitStack], releases: ExitStack
) -> Iterator[int]:
    """Those that were free, each locked when it is asked for."""
    for shard in shards:
        lock = releases.enter_context(ExitStack())
        if lock.enter_context(locks.shard(shard)):
            held[shard] = lock
            yield shard


def drain(
    client: redis.Redis, shard: int, *, now: datetime, batch_size: int = BATCH_SIZE
) -> Drained:
    """Drain one shard; the caller holds its lock."""
    with redis_thread() as thread:
        run = _Run(client, now, thread, batch_size)
        done = _drain(run, iter([shard]), leave=lambda shard: None)
    for _, failure in run.failures:
        raise failure
    return done


@dataclass(frozen=True, slots=True)
class _Run:
    """One go at some shards. Those that failed are left as they were found: what was read of them
    and not acknowledged is read again by the next run."""

    client: redis.Redis
    now: datetime
    thread: ThreadPoolExecutor
    batch_size: int = BATCH_SIZE
    failures: list[fault_isolation.Failure] = field(default_factory=list)

    def has_failed(self, shard: int) -> bool:
        return any(failed == _name(shard) for failed, _ in self.failures)

    def attempt(self, shard: int, act: Callable[[], object]) -> None:
        """Unless the shard has failed before. Called from both threads."""
        if not self.has_failed(shard):
            with fault_isolation.kept(self.failures, _name(shard)):
                act()


def _name(shard: int) -> str:
    return f"shard {shard}"


def _drain(run: _Run, shards: Iterator[int], leave: Callable[[int], None]) -> Drained:
    """`leave` is told of a shard when nothing more is to be done in it."""
    done, pinned, sent = Drained(), PinnedPrices(), Sent(run.thread)
    reading = ReadAhead(
        run.thread, run.client, pinned, count=run.batch_size, batches_max=BATCHES_PER_RUN_MAX
    )
    for read in reading.over(shards):
        sent.look()
        run.attempt(read.shard, partial(_book, run, read, pinned, sent, done))
        if run.has_failed(read.shard):
            reading.give_up(read.shard)
        if read.is_last:
            done.left = done.left or read.left
            tidy = partial(run.attempt, read.shard, partial(_tidy, run.client, read))
            sent.send(tidy, then=partial(leave, read.shard))
    sent.wait()
    return done


def _book(run: _Run, read: Read, pinned: PinnedPrices, sent: Sent, done: Drained) -> None:
    if read.failure is not None:
        raise read.failure
    if read.batch.read:
        booked = booking.book(read.shard, read.batch, pinned, now=run.now)
        done.add(booked.counts)
        finish = partial(_finish, run.client, read.shard, epoch_of(read.shard), booked)
        sent.send(partial(run.attempt, read.shard, finish))


def _finish(client: redis.Redis, shard: int, epoch: str, booked: Booked) -> None:
    acknowledge(client, shard, epoch, booked.acknowledgements())
    set_aside(client, shard, booked.unreadable)


def _tidy(client: redis.Redis, read: Read) -> None:
    if read.found:
        trim(client, read.shard)


def _busy_shards(client: redis.Redis) -> list[int]:
    with client.pipeline(transaction=False) as pipe:
        for shard in range(registers.SHARDS):
            pipe.xlen(registers.stream_key(registers.tag_of_shard(shard)))
        lengths = pipe.execute(raise_on_error=False)
    # One that cannot tell its length fails when it is read, and alone.
    return [shard for shard, length in enumerate(lengths) if length]


def lag_ms(client: redis.Redis, *, now: datetime) -> int:
    """The age of the oldest entry that is not drained; 0 if there is none."""
    found = fault_isolation.each(
        _busy_shards(client), partial(oldest_unread_ms, client), name=_name
    )
    oldest = [entry_ms for entry_ms in found if entry_ms is not None]
    return max(registers.moment_ms(now) - min(oldest), 0) if oldest else 0
