"""One HTTP exchange: the body with a limit, answers with patience, and the client's leaving."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal, TypedDict

from workers.server.errors import BodyTooLarge

Headers = list[tuple[bytes, bytes]]


class _Typed(TypedDict):
    type: str


class Received(_Typed, total=False):
    """A part of the body, or that the client has left."""

    body: bytes
    more_body: bool


class ResponseStart(TypedDict):
    type: Literal["http.response.start"]
    status: int
    headers: Headers


class ResponseBody(TypedDict):
    type: Literal["http.response.body"]
    body: bytes
    more_body: bool


Receive = Callable[[], Awaitable[Received]]
Send = Callable[[ResponseStart | ResponseBody], Awaitable[None]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream"


class ClientGone(ConnectionError):
    """The client left or did not read in time."""


class Exchange:
    """`call_id` is the caller's name for its call, empty where it gave none."""

    def __init__(
        self, receive: Receive, send: Send, *, send_timeout_s: float, call_id: str = ""
    ) -> None:
        self.call_id = call_id
        self._receive = receive
        self._send = send
        self._send_timeout_s = send_timeout_s

    async def read_body(self, max_bytes: int) -> bytes:
        """The whole body. Raises `BodyTooLarge` or `ClientGone`."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > max_bytes:
                raise BodyTooLarge(
                    f"The body is larger than {max_bytes} bytes", code="request_too_large"
                )
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    async def respond(
        self, body: bytes, *, status: int = 200, content_type: bytes = JSON, headers: Headers
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, content_type, [length, *headers])
        await self.send_part(body, is_last=True)

    async def start_stream(self) -> None:
        await self._start(200, EVENT_STREAM, [(b"cache-control", b"no-cache")])

    async def send_part(self, part: bytes, *, is_last: bool = False) -> None:
        await self._push({"type": "http.response.body", "body": part, "more_body": not is_last})

    @asynccontextmanager
    async def watched(self, on_leaving: Callable[[], None]) -> AsyncIterator[None]:
        """Within this, `on_leaving` is called when the client leaves. The body must be read."""
        watcher = asyncio.create_task(self._watch(on_leaving))
        try:
            yield
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher

    async def _watch(self, on_leaving: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        on_leaving()

    async def _start(self, status: int, content_type: bytes, headers: Headers) -> None:
        await self._push(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", content_type), *headers],
            }
        )

    async def _push(self, message: ResponseStart | ResponseBody) -> None:
        """Send, or give the client up if its side of the connection stays full."""
        try:
            await asyncio.wait_for(self._send(message), self._send_timeout_s)
        except TimeoutError:
            raise ClientGone from None
