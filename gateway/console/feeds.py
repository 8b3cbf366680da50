"""Server-sent events that say only that something changed; the page then fetches itself.

However many pages watch one thing, it is read once per interval and process. A feed holds no
database connection while it waits, ends by itself after a while (the browser comes back), and
their number is limited, in all and for each caller.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from asgiref.sync import sync_to_async
from django.db import connections
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse

OPEN_MAX: Final = 500
OPEN_PER_CALLER_MAX: Final = 100
TOPICS_MAX: Final = 5_000
LIFETIME_S: Final = 600
# The browser calls a feed stale when it hears nothing for 15 s.
REPEAT_S: Final = 5.0
RECONNECT_MS: Final = 2_000


@dataclass(slots=True)
class _Topic:
    mark: str = ""
    read_at: float = float("-inf")
    reading: bool = False


class _Open(StreamingHttpResponse):
    """Counts itself as open until Django closes it, however the connection ends."""

    def __init__(self, events: AsyncIterator[bytes], closed: Callable[[], None]) -> None:
        super().__init__(events, content_type="text/event-stream")
        self._closed: Callable[[], None] | None = closed

    def close(self) -> None:
        super().close()
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()


class Feed:
    """Watches one kind of thing; `read` gives the mark of a topic, which grows as it changes."""

    def __init__(self, read: Callable[[int], str], *, interval_s: float) -> None:
        self._read = read
        self._interval_s = interval_s
        self._topics: dict[int, _Topic] = {}
        self._open: Counter[str] = Counter()

    def respond(self, topic: int, *, caller: str) -> HttpResponseBase:
        """`caller` is whoever must not take all places: an address, or a tenant."""
        if self._open.total() >= OPEN_MAX or self._open[caller] >= OPEN_PER_CALLER_MAX:
            return HttpResponse("Too many live pages.\n", status=503, headers={"Retry-After": "30"})
        self._open[caller] += 1
        response = _Open(self._events(topic), lambda: self._count_closed(caller))
        response["Cache-Control"] = "no-store"
        response["X-Accel-Buffering"] = "no"
        return response

    def _count_closed(self, caller: str) -> None:
        self._open[caller] -= 1
        if not self._open[caller]:
            del self._open[caller]

    async def _events(self, topic: int) -> AsyncIterator[bytes]:
        ends_at = time.monotonic() + LIFETIME_S
        said, said_at = None, float("-inf")
        yield f"retry: {RECONNECT_MS}\n\n".encode()
        while (now := time.monotonic()) < ends_at:
            mark = await self._mark(topic)
            if mark != said or now - said_at >= REPEAT_S:
                yield f"event: mark\ndata: {mark}\n\n".encode()
                said, said_at = mark, now
            await asyncio.sleep(self._interval_s)

    async def _mark(self, topic: int) -> str:
        if len(self._topics) > TOPICS_MAX:
            self._topics.clear()
        seen = self._topics.setdefault(topic, _Topic())
        if seen.reading or time.monotonic() - seen.read_at < self._interval_s:
            return seen.mark
        seen.reading = True
        try:
            seen.mark = await sync_to_async(self._fetch, thread_sensitive=False)(topic)
        finally:
            seen.reading = False
            seen.read_at = time.monotonic()
        return seen.mark

    def _fetch(self, topic: int) -> str:
        try:
            return self._read(topic)
        finally:
            connections.close_all()
