"""The console's limit on request bodies, before Django: its ASGI handler reads any body to disk.

Every page, form and API call is far below it. The data plane has a limit of its own.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TOO_LARGE: Final = b"The body is too large.\n"


class _TooLarge(Exception):
    """Raised out of `receive`, through the handler that reads the body."""


class BodyLimit:
    """Answers 413 as soon as a body is known to exceed `bytes_max`."""

    def __init__(self, application: Application, *, bytes_max: int) -> None:
        self._application = application
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif _declared(scope) > self._bytes_max:
            await _refuse(send)
        else:
            try:
                await self._application(scope, self._counted(receive), send)
            except _TooLarge:
                await _refuse(send)

    def _counted(self, receive: Receive) -> Receive:
        left = self._bytes_max

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLarge
            return message

        return counted


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(TOO_LARGE)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": TOO_LARGE})
