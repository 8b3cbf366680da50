"""The drain: usage events from Redis into Postgres, posted exactly once.

A batch is rated again, written and posted in one transaction, and acknowledged after it has
committed; the acknowledging script corrects the registers by the exact difference. A batch that
was committed and not acknowledged is read again and found to be known.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import redis

from billing import booking, collector, locks, registers
from billing.acknowledgement import acknowledge, epoch_of
from billing.booking import Booked, Drained
from billing.pinned_prices import PinnedPrices
from billing.read_ahead import Read, ReadAhead
from billing.redis_thread import Sent, redis_thread
from billing.usage_stream import ensure_groups, last_delivered, oldest_unread_ms, set_aside, trim

__all__ = ["Drained", "drain", "drain_all", "ensure_groups", "lag_ms", "last_delivered"]

BATCH_SIZE: Final = 4_000
# A run of the task ends here even if the stream does not: the next one goes on.
BATCHES_PER_RUN_MAX: Final = 25


@collector.paused()
def drain_all(client: redis.Redis, *, now: datetime) -> Drained:
    """Drain every shard that has something, and that nobody else is draining.

    While the last batches of one shard are posted, the first of the next is read, under its lock.
    """
    locks_held: dict[int, ExitStack] = {}
    # Locks are let go of only once nothing more is done under them, whatever happens.
    with ExitStack() as whatever_happens, redis_thread() as thread:
        shards = _locked(_busy_shards(client), locks_held, whatever_happens)
        return _drain(
            _Run(client, now, thread), shards, leave=lambda shard: locks_held.pop(shard).close()
        )


def _locked(
    shards: Iterable[int], held: dict[int, ExitStack], whatever_happens: ExitStack
) -> Iterator[int]:
    """Those that were free, each locked when it is asked for."""
    for shard in shards:
        lock = whatever_happens.enter_context(ExitStack())
        if lock.enter_context(locks.shard(shard)):
            held[shard] = lock
            yield shard


def drain(
    client: redis.Redis, shard: int, *, now: datetime, batch_size: int = BATCH_SIZE
) -> Drained:
    """Drain one shard; the caller holds its lock."""
    with redis_thread() as thread:
        return _drain(
            _Run(client, now, thread, batch_size), iter([shard]), leave=lambda shard: None
        )


@dataclass(frozen=True, slots=True)
class _Run:
    client: redis.Redis
    now: datetime
    thread: ThreadPoolExecutor
    batch_size: int = BATCH_SIZE


def _drain(run: _Run, shards: Iterator[int], leave: Callable[[int], None]) -> Drained:
    """`leave` is told of a shard when nothing more is to be done in it."""
    done, pinned, sent = Drained(), PinnedPrices(), Sent(run.thread)
    reading = ReadAhead(
        run.thread, run.client, pinned, count=run.batch_size, batches_max=BATCHES_PER_RUN_MAX
    )
    for read in reading.over(shards):
        sent.look()
        if read.batch.read:
            booked = booking.book(read.shard, read.batch, pinned, now=run.now)
            done.add(booked.counts)
            sent.send(partial(_finish, run.client, read.shard, epoch_of(read.shard), booked))
        if read.is_last:
            done.left = done.left or read.left
            tidy = partial(_tidy, run.client, read)
            sent.send(tidy, then=partial(leave, read.shard))
    sent.wait()
    return done


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
