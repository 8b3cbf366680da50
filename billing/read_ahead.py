"""Batches of a usage stream: the next one is read and parsed while the caller posts this one."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import redis

from billing import usage_stream
from billing.usage_stream import BEGINNING, NEVER_DELIVERED, StreamEntry, Unreadable

Batch = Sequence[StreamEntry | Unreadable]


class ReadAhead:
    """At most `batches_max` batches of one shard, whose lock the caller holds.

    First what was delivered before and never acknowledged, then what is new. Nothing is read
    that is not handed out, unless the caller fails. `ended` is whether the stream's end was met.
    """

    def __init__(self, client: redis.Redis, shard: int, *, count: int, batches_max: int) -> None:
        self.ended = False
        self._client = client
        self._shard = shard
        self._count = count
        self._batches_max = batches_max

    def batches(self) -> Generator[Batch]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="drain-reader") as reader:
            left, after = self._batches_max, BEGINNING
            coming = self._read(reader, after)
            while left:
                batch = coming.result()
                if not batch and after == NEVER_DELIVERED:
                    self.ended = True
                    return
                after = batch[-1].id if batch and after != NEVER_DELIVERED else NEVER_DELIVERED
                left -= bool(batch)
                if left:
                    coming = self._read(reader, after)
                if batch:
                    yield batch

    def _read(self, reader: ThreadPoolExecutor, after: str) -> Future[Batch]:
        return reader.submit(
            usage_stream.read, self._client, self._shard, count=self._count, after=after
        )
