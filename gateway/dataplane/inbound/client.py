"""The calling side of one request: its headers, its body, and the bytes we give it.

Reads the body within a limit, reports when the caller leaves, and writes with back-pressure:
`write` returns when the transport has taken the bytes, and a caller that takes none for too long
is cut. The server swallows what is sent to a caller that has left, so leaving is learned from
`receive` alone.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypedDict

from gateway.dataplane.inbound import codings, sockets
from gateway.dataplane.inbound.memory_budget import Budget
from gateway.dataplane.inbound.watchdog import ClientLeft, ClientStalled, DeadlinePassed, Watchdog
from gateway.dataplane.limits import Limits
from gateway.errors import InvalidRequest, RequestTimeout, Unavailable
from gateway.version import HEADER, VERSION
from providers.wires.sse import BYTE_ORDER_MARK

Headers = Sequence[tuple[bytes, bytes]]


class Scope(TypedDict, total=False):
    """What a server says of a call, as far as it is read here."""

    type: str
    method: str
    path: str
    headers: Headers
    client: tuple[str, int] | None


class Message(TypedDict, total=False):
    """What a server and we say to each other in it."""

    type: str
    status: int
    headers: Headers
    body: bytes
    more_body: bool
    message: str


Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Of a body that is refused, also for its length, so many times the limit is passed over.
REST_FACTOR = 2
VERSION_HEADER = (HEADER.encode(), VERSION.encode())


class Client:
    """See the module. `started` is True once a status line was sent: the point of no return."""

    __slots__ = (
        "_budget",
        "_limits",
        "_is_read",
        "_receive",
        "_scope",
        "_send",
        "_taken",
        "cut_off",
        "head",
        "headers",
        "labels",
        "rates",
        "repeated",
        "started",
        "tenant",
        "watchdog",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        limits: Limits,
        watchdog: Watchdog,
        budget: Budget,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits = limits
        self._budget = budget
        self._taken = 0
        self._is_read = False
        self.watchdog = watchdog
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.repeated = _repeated(scope["headers"], self.headers)
        self.head: list[tuple[bytes, bytes]] = []  # belongs to a refusal
        self.labels: list[tuple[bytes, bytes]] = []  # belong to every answer
        self.rates: list[tuple[bytes, bytes]] = []  # what is left of its minute
        self.started = False
        self.tenant: int | None = None  # known before anything is held
        self.cut_off = False

    async def body(self) -> bytes:
        """The whole body, decoded, or RequestTooLarge as soon as it is known to be."""
        body = await self._body_as_sent()
        coding = self.headers.get(b"content-encoding", b"").decode("latin-1")
        if coding:
            body = codings.decoded(body, coding, bytes_max=self._limits.body_bytes_max)
            self.hold(len(body) - self._taken)
        return body.removeprefix(BYTE_ORDER_MARK)

    async def _body_as_sent(self) -> bytes:
        limit = self._limits.body_bytes_max
        declared = self.headers.get(b"content-length", b"")
        length = int(declared) if declared.isdigit() else -1
        if length > limit:
            raise codings.too_large(limit)
        self.hold(max(length, 0))
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._next_part()
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise codings.too_large(limit)
            self.hold(size - self._taken)
            parts.append(part)
            # A body of the declared length is complete; the message that says so comes later.
            if size == length or not message.get("more_body"):
                break
        self._is_read = True
        self._watch()
        if not size:
            raise InvalidRequest("The request has no body; send a JSON object.")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _next_part(self) -> Message:
        """A caller that is still there is told what was wrong with its body."""
        try:
            message = await self.watchdog.wait(
                self._receive(), limit_s=self._limits.body_timeout_s, reason=ClientStalled
            )
        except ClientStalled:
            raise RequestTimeout("The body did not arrive in time.") from None
        except DeadlinePassed:
            raise Unavailable("The body was still on its way. Try again.") from None
        if message["type"] == "http.disconnect":
            # Also what the server says of a body that is not framed as its headers promise.
            raise InvalidRequest("The body ended before it was complete.", code="broken_body")
        return message

    async def pass_over_rest(self) -> None:
        """Read what is left of a body that nobody wants, within limits: a caller that is still
        sending when its connection is closed hears of that alone, and not why."""
        is_sent = b"transfer-encoding" in self.headers or self.headers.get(
            b"content-length", b"0"
        ) not in (b"", b"0")
        # Who asks before it sends has sent nothing.
        if self._is_read or not is_sent or b"expect" in self.headers:
            return
        self._is_read = True
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.rest_timeout_s
        left = REST_FACTOR * self._limits.body_bytes_max
        while left > 0 and (left_s := until - loop.time()) > 0:
            try:
                message = await self.watchdog.wait(
                    self._receive(), limit_s=left_s, reason=ClientStalled
                )
            except (ClientStalled, DeadlinePassed):
                return
            left -= len(message.get("body", b""))
            if not message.get("more_body"):
                return

    def hold(self, size: int) -> None:
        """Count bytes that this request makes the process hold; Unavailable where too many."""
        if size > 0:
            self._budget.take(size, tenant=self.tenant)
            self._taken += size

    def release(self) -> None:
        """The request is over and holds nothing any more."""
        self._budget.give_back(self._taken, tenant=self.tenant)
        self._taken = 0

    def _watch(self) -> None:
        """From here on `receive` says that the body has ended, and that the caller is gone."""
        heard = self._receive()
        if not hasattr(heard, "add_done_callback"):
            heard = asyncio.ensure_future(heard)
        heard.add_done_callback(self._hear)

    def _hear(self, heard: "asyncio.Future[Message]") -> None:
        if not heard.cancelled() and heard.exception() is None:
            if heard.result()["type"] == "http.request":
                self._watch()
                return
        self.watchdog.note_client_left()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        head = [*headers, *self.labels, *self.rates, VERSION_HEADER]
        await self._give({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, data: bytes) -> None:
        """Returns when the transport took the bytes; ClientLeft or ClientStalled where not."""
        await self._give({"type": "http.response.body", "body": data, "more_body": True})
        if self.watchdog.client_left:
            raise ClientLeft

    async def end(self, data: bytes) -> None:
        await self._give({"type": "http.response.body", "body": data, "more_body": False})

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """A complete response."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [*headers, length])
        await self.end(body)

    async def _give(self, message: Message) -> None:
        await self.watchdog.wait(
            self._send(message), limit_s=self._limits.write_stall_s, reason=ClientStalled
        )

    def cut(self) -> None:
        """Close the connection of a caller that reads nothing, and free what it holds back."""
        self.cut_off = True
        peer = self._scope.get("client")
        if peer:
            sockets.cut(peer[0], int(peer[1]))


def _repeated(
    listed: Sequence[tuple[bytes, bytes]], named: Mapping[bytes, bytes]
) -> frozenset[bytes]:
    """The headers that came more than once."""
    if len(listed) == len(named):
        return frozenset()
    counts = Counter(name for name, _ in listed)
    return frozenset(name for name, count in counts.items() if count > 1)
