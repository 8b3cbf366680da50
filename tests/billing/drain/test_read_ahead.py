"""Batches are read ahead in a thread of their own: all of each shard, and nothing beyond."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from billing import registers
from billing.drain.pinned_prices import PinnedPrices
from billing.drain.read_ahead import AHEAD, ReadAhead
from billing.drain.redis_thread import redis_thread
from billing.holding import usage_stream

COUNT = 3


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with redis_thread() as one:
        yield one


@pytest.fixture
def client(redis_client: redis.Redis) -> redis.Redis:
    usage_stream.ensure_groups(redis_client)
    return redis_client


def append(client: redis.Redis, shard: int, entries: int) -> None:
    """What is in them does not matter here: an entry that cannot be read is an entry."""
    for _ in range(entries):
        client.xadd(stream_of(shard), {"e": "?"})


def stream_of(shard: int) -> str:
    return registers.stream_key(registers.tag_of_shard(shard))


def delivered(client: redis.Redis, shard: int) -> int:
    return int(client.xpending(stream_of(shard), registers.GROUP_LEDGER)["pending"])


def reading(client: redis.Redis, thread: ThreadPoolExecutor, batches_max: int = 9) -> ReadAhead:
    return ReadAhead(thread, client, PinnedPrices(), count=COUNT, batches_max=batches_max)


def test_each_shard_is_read_to_its_end_and_told_to_be(
    client: redis.Redis, thread: ThreadPoolExecutor
) -> None:
    # given
    for shard, entries in enumerate((COUNT + 1, 0, 2)):
        append(client, shard, entries)
    # when
    reads = list(reading(client, thread).over(iter(range(3))))
    # then
    told = [(read.shard, read.batch.read, read.is_last, read.found) for read in reads]
    assert told == [
        (0, COUNT, False, True),
        (0, 1, True, True),
        (1, 0, True, False),
        (2, 2, True, True),
    ]
    assert not any(read.left for read in reads if read.is_last)


def test_no_shard_is_lost_when_the_thread_had_nothing_to_read_before_it(
    client: redis.Redis, thread: ThreadPoolExecutor
) -> None:
    # given
    for shard in range(5):
        append(client, shard, 1)

    def slow() -> Iterator[int]:
        for shard in range(5):
            # Whatever the thread was asked before has found nothing.
            thread.submit(lambda: None).result()
            yield shard

    # when
    reads = list(reading(client, thread).over(slow()))
    # then
    assert [(read.shard, read.batch.read) for read in reads] == [(n, 1) for n in range(5)]


def test_what_was_delivered_and_not_acknowledged_comes_first(
    client: redis.Redis, thread: ThreadPoolExecutor
) -> None:
    # given
    append(client, 0, 2)
    client.xreadgroup(
        registers.GROUP_LEDGER, usage_stream.CONSUMER, {stream_of(0): ">"}, count=COUNT
    )
    append(client, 0, 1)
    # when
    reads = list(reading(client, thread).over(iter([0])))
    # then
    assert [read.batch.read for read in reads] == [2, 1]


def test_a_run_ends_at_its_limit_and_says_that_more_is_left(
    client: redis.Redis, thread: ThreadPoolExecutor
) -> None:
    # given
    append(client, 0, 3 * COUNT)
    append(client, 1, 1)
    # when
    reads = list(reading(client, thread, batches_max=2).over(iter([0, 1])))
    # then
    assert [(read.shard, read.left) for read in reads if read.is_last] == [(0, True), (1, False)]
    assert delivered(client, 0) == 2 * COUNT


def test_it_reads_so_many_batches_ahead_and_no_more(
    client: redis.Redis, thread: ThreadPoolExecutor
) -> None:
    # given
    append(client, 0, 9 * COUNT)
    batches = reading(client, thread).over(iter([0]))
    # when
    next(batches)
    thread.submit(lambda: None).result()
    # then
    assert delivered(client, 0) == (1 + AHEAD) * COUNT
    batches.close()


def test_it_reads_ahead_across_shards_however_long_the_thread_was_busy(
    client: redis.Redis, thread: ThreadPoolExecutor
) -> None:
    # given: streams of one batch each
    shards = 20
    for shard in range(shards):
        append(client, shard, 1)
    # when: the thread still does something else when the next batch is asked for, or does not
    ahead = []
    for read in reading(client, thread).over(iter(range(shards))):
        thread.submit(lambda: None).result()
        ahead.append(sum(delivered(client, shard) for shard in range(read.shard + 1, shards)))
        if read.shard % 3:
            thread.submit(time.sleep, 0.02)
    # then
    assert ahead == [min(AHEAD, shards - 1 - place) for place in range(shards)]


def test_a_shard_is_asked_for_when_it_may_soon_be_read(
    client: redis.Redis, thread: ThreadPoolExecutor
) -> None:
    # given
    asked: list[int] = []

    def shards() -> Iterator[int]:
        for shard in range(60):
            append(client, shard, 1)
            asked.append(shard)
            yield shard

    # when: nobody locks shards that others could drain
    ahead = [len(asked) - 1 - read.shard for read in reading(client, thread).over(shards())]
    # then
    assert max(ahead) <= 2 * (1 + AHEAD)
