"""Batches of a usage stream: the next is read and rated while the caller posts this one."""

import sys
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import redis

from billing import rated_batches, usage_stream
from billing.pinned_prices import PinnedPrices
from billing.rated_batches import Batch
from billing.usage_stream import BEGINNING, NEVER_DELIVERED

# The posting thread asks PostgreSQL a dozen questions per batch. By default the interpreter lets
# the reading thread go on for up to 5 ms after each answer, while PostgreSQL has nothing to do.
SWITCH_INTERVAL_S: Final = 0.001


@contextmanager
def reading_thread() -> Iterator[ThreadPoolExecutor]:
    """The one thread that reads ahead, for every shard of a run."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="drain-reader") as thread:
            yield thread
    finally:
        sys.setswitchinterval(before_s)


class ReadAhead:
    """At most `batches_max` batches of one shard, whose lock the caller holds.

    First what was delivered before and never acknowledged, then what is new. The first batch is
    on its way from the start. Nothing is read that is not handed out, unless the caller fails.
    `found`: there was something. `ended`: the stream's end was met. `is_last`: no batch follows the
    one handed out last.
    """

    def __init__(
        self,
        thread: ThreadPoolExecutor,
        client: redis.Redis,
        shard: int,
        pinned: PinnedPrices,
        *,
        count: int,
        batches_max: int,
    ) -> None:
        self.found = False
        self.ended = False
        self.shard = shard
        self._thread = thread
        self._client = client
        self._pinned = pinned
        self._count = count
        self._left = batches_max
        self._after = BEGINNING
        self._coming: Future[Batch] | None = thread.submit(self._read)

    @property
    def is_last(self) -> bool:
        return self._coming is None

    def batches(self) -> Generator[Batch]:
        while self._coming is not None:
            batch = self._coming.result()
            self._left -= 1
            goes_on = self._left > 0 and not self.ended
            self._coming = self._thread.submit(self._read) if goes_on else None
            if batch.read:
                self.found = True
                yield batch

    def _read(self) -> Batch:
        """In the reading thread; one at a time, so that the caller sees what it leaves behind."""
        found = self._entries()
        if not found and self._after != NEVER_DELIVERED:
            self._after = NEVER_DELIVERED
            found = self._entries()
        if self._after == NEVER_DELIVERED:
            self.ended = len(found) < self._count
        else:
            self._after = found[-1].id
        return rated_batches.rate_ahead(found, self._pinned)

    def _entries(self) -> list[usage_stream.StreamEntry | usage_stream.Unreadable]:
        return usage_stream.read(self._client, self.shard, count=self._count, after=self._after)
