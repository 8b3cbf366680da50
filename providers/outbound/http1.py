"""One HTTP/1.1 connection to an upstream, and the pools of idle ones. No policy, no retry.

Written by hand for one reason: aborting must reach the upstream at once, also while it has not
answered yet (a provider's GPU would go on computing for nobody). Reading has back-pressure: what
the relay does not take stays in the socket. Answers are never decompressed or redirected.
"""

import asyncio
import ssl
from collections import deque
from typing import cast

import httptools

from providers.outbound.egress import Origin

HEAD_BYTES_MAX = 64 * 1024
READ_BYTES_MAX = 64 * 1024
BUFFERED_BYTES_MAX = 64 * 1024
IDLE_MAX = 256
IDLE_S = 15.0


class Broken(Exception):
    """The connection ended or spoke nonsense; `answered` once a byte of the answer had come."""

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


# Every read of the process goes through here: between `get_buffer` and `buffer_updated` of one
# connection no other is read. A loop's own reads are four times as large, and each stream of a
# client that is slow would hold several of them.
_incoming = memoryview(bytearray(READ_BYTES_MAX))


class Connection(asyncio.BufferedProtocol):
    """Carries one request at a time. All methods belong to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_since = 0.0
        self.reused = False
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self._has_head = False
        self._complete = False
        self._kept_alive = False
        self._until_close = False
        self._received = 0
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._problem = ""
        self._is_nonsense = False

    # using it

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """The answer was read to its end and the upstream keeps the connection."""
        return self.open and self._kept_alive and not self._until_close and not self._problem

    def send(self, head: bytes, body: bytes) -> None:
        """Begin a request."""
        assert self._transport is not None
        if self.reused:
            self._begin()
        self._transport.writelines([head, body])

    async def answer(self) -> None:
        """Returns once `status` and `headers` are there; Broken where they never come."""
        while not self._has_head:
            self._raise_problem()
            await self._wait()
        if self._is_nonsense:
            self._raise_problem()

    async def read(self) -> bytes | None:
        """What has come of the body, None at its end; Broken where it is cut."""
        while not self._chunks:
            if self._complete:
                return None
            self._raise_problem()
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused and self._transport:
            self._paused = False
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()

    def _raise_problem(self) -> None:
        if self._problem:
            raise Broken(self._problem, answered=self._received > 0)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _incoming

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        try:
            self._parser.feed_data(_incoming[:nbytes])
        except httptools.HttpParserError as problem:
            self._fail(f"not HTTP: {problem}")
        if not self._has_head and self._received > HEAD_BYTES_MAX:
            self._fail("the headers of the answer are too long")
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._until_close and exc is None:
            self._complete = True
        elif not self._complete and not self._problem:
            where = "in the middle of its answer" if self._received else "without an answer"
            self._problem = f"the connection was closed {where}"
        self._wake()

    def _fail(self, problem: str) -> None:
        self._problem = self._problem or problem
        self._is_nonsense = True
        self.abort()

    # the parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:  # informational: the answer itself is still to come
            self.headers.clear()
            return
        self._has_head = True
        if self.headers.get("content-encoding", "identity") != "identity":
            self._fail("the answer is compressed, which was not asked for")
        chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        no_body = self.status in (204, 304)
        self._until_close = not (chunked or no_body or "content-length" in self.headers)

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFERED_BYTES_MAX and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if not self._has_head:
            return
        if self._complete:
            self._fail("more than one answer to one request")
        self._complete = True
        # The parser knows this here and forgets it when the callback is over.
        self._kept_alive = self._parser.should_keep_alive()


class Pool:
    """The idle connections of one origin, the youngest first."""

    def __init__(self, origin: Origin, address: str, tls: ssl.SSLContext | None) -> None:
        self.origin = origin
        self.address = address
        self._tls = tls
        self._idle: deque[Connection] = deque()

    def take(self, now: float) -> Connection | None:
        """An idle connection that is still open; those that waited too long are closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.open and now - connection.idle_since < IDLE_S:
                connection.reused = True
                return connection
            connection.abort()
        return None

    def give_back(self, connection: Connection, now: float) -> None:
        """Keep it where that is possible; hang up otherwise."""
        if not connection.reusable:
            connection.abort()
            return
        connection.idle_since = now
        self._idle.append(connection)
        if len(self._idle) > IDLE_MAX:
            self._idle.popleft().abort()

    async def connect(self, *, timeout_s: float) -> Connection:
        """A fresh connection to the pinned address; the certificate must name the host."""
        loop = asyncio.get_running_loop()
        is_tls = self.origin.scheme == "https"
        opening = loop.create_connection(
            lambda: Connection(loop),
            self.address,
            self.origin.port,
            ssl=self._tls if is_tls else None,
            server_hostname=self.origin.host if is_tls else None,
        )
        # Not `wait_for`, which in Python 3.11 can swallow the cancellation by the watchdog.
        async with asyncio.timeout(timeout_s):
            _, connection = await opening
        return connection

    def close(self) -> None:
        while self._idle:
            self._idle.pop().abort()


def tls_context() -> ssl.SSLContext:
    """The system's authorities, host names checked, HTTP/1.1 only."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
