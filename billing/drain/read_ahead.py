"""Batches of usage streams: the next ones are read and rated while the caller posts this one."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import redis

from billing import fault_isolation
from billing.drain import rated_batches
from billing.drain.pinned_prices import PinnedPrices
from billing.drain.rated_batches import Batch
from billing.holding import usage_stream
from billing.holding.usage_stream import BEGINNING, NEVER_DELIVERED

# A stream often ends with a small batch, which is posted sooner than a large one is read.
AHEAD: Final = 2


@dataclass(frozen=True, slots=True)
class Read:
    """A batch of a shard, perhaps empty. `is_last`: no other of this shard follows. `left`: though
    its stream goes on. `found`: this batch or one before it has something. `failure`: why its
    stream could not be read on."""

    shard: int
    batch: Batch
    is_last: bool
    left: bool
    found: bool
    failure: Exception | None = None


@dataclass(slots=True)
class _Stream:
    shard: int
    batches_left: int
    after: str = BEGINNING
    found: bool = False


class ReadAhead:
    """At most `batches_max` batches of each shard: first what was delivered before and never
    acknowledged, then what is new. Nothing is read that is not handed out, unless the caller
    fails."""

    def __init__(
        self,
        thread: ThreadPoolExecutor,
        client: redis.Redis,
        pinned: PinnedPrices,
        *,
        count: int,
        batches_max: int,
    ) -> None:
        self._thread = thread
        self._client = client
        self._pinned = pinned
        self._count = count
        self._batches_max = batches_max
        # Appended to here and popped there, each in one step of the interpreter.
        self._waiting: deque[int] = deque()
        self._stream: _Stream | None = None
        self._given_up: set[int] = set()

    def over(self, shards: Iterator[int]) -> Generator[Read]:
        """One shard after the other. `shards` is asked for the next, in the caller's thread, when
        it may soon be read: that is where its lock is taken."""
        more, unfinished = True, 0
        coming: deque[Future[Read | None]] = deque()
        while more or unfinished:
            # As many as there are reads: each may come to the end of a shard, and one that finds
            # no other to go on with leaves the caller to wait for the next.
            while more and len(self._waiting) < 1 + AHEAD:
                shard = next(shards, None)
                more = shard is not None
                if shard is not None:
                    self._waiting.append(shard)
                    unfinished += 1
            # One to be handed out, and those ahead of it.
            while len(coming) < 1 + AHEAD:
                coming.append(self._thread.submit(self._read))
            read = coming.popleft().result()
            if read is not None:
                unfinished -= read.is_last
                yield read

    def give_up(self, shard: int) -> None:
        """Read no more of this shard: its next batch is the last, and empty."""
        self._given_up.add(shard)

    def _read(self) -> Read | None:
        """In the thread, one at a time; None once no shard waits to be read."""
        if self._stream is None:
            if not self._waiting:
                return None
            self._stream = _Stream(self._waiting.popleft(), self._batches_max)
        read = self._next_or_failure(self._stream)
        if read.is_last:
            self._stream = None
        return read

    def _next_or_failure(self, stream: _Stream) -> Read:
        failed: list[fault_isolation.Failure] = []
        if stream.shard not in self._given_up:
            with fault_isolation.kept(failed, f"reading shard {stream.shard}"):
                return self._next_of(stream)
        nothing = rated_batches.rate_ahead([], self._pinned)
        failure = failed[0][1] if failed else None
        return Read(stream.shard, nothing, True, False, stream.found, failure)

    def _next_of(self, stream: _Stream) -> Read:
        entries = self._entries(stream)
        if not entries and stream.after != NEVER_DELIVERED:
            stream.after = NEVER_DELIVERED
            entries = self._entries(stream)
        stream.batches_left -= 1
        stream.found = stream.found or bool(entries)
        left = stream.after != NEVER_DELIVERED or len(entries) == self._count
        if stream.after != NEVER_DELIVERED:
            stream.after = entries[-1].id
        return Read(
            stream.shard,
            rated_batches.rate_ahead(entries, self._pinned),
            is_last=not left or not stream.batches_left,
            left=left,
            found=stream.found,
        )

    def _entries(self, stream: _Stream) -> list[usage_stream.StreamEntry | usage_stream.Unreadable]:
        return usage_stream.read(self._client, stream.shard, count=self._count, after=stream.after)
