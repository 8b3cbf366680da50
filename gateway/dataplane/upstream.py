"""The one client that calls providers and workers.

One pyreqwest client per origin, its checked address pinned. No redirects (they would carry the
credential to another host), no proxies, no decompression, no prefetch (it would hold the first
token back until the last), TLS always verified. No retry and no time limit beyond the connect:
both belong to the pipeline. Failures come out as `providers.errors`.
"""

import asyncio
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    ConnectError,
    ConnectTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from gateway.dataplane import egress
from gateway.dataplane.egress import EgressRefused, Origin
from providers.chat import UpstreamCall
from providers.errors import ConnectFailed, StreamBroken, Timeout

RESOLVE_EVERY_S = 60.0
IDLE_PER_HOST = 256


class Answer:
    """An upstream response whose head has arrived. Close it, whatever happened."""

    __slots__ = ("_request", "_response", "status")

    def __init__(self, request: StreamRequest, response: Response) -> None:
        self._request = request
        self._response = response
        self.status = response.status

    def headers(self) -> Mapping[str, str]:
        return dict(self._response.headers.items())

    async def read(self) -> bytes | None:
        """The next bytes as they come, None at the end; StreamBroken where it is cut."""
        try:
            chunk = await self._response.body_reader.read_chunk()
        except PyreqwestError as problem:
            raise StreamBroken(_causes(problem), after_first_byte=True) from None
        return None if chunk is None else chunk.to_bytes()

    async def close(self) -> None:
        """Hang up; before the end of the body this aborts the request upstream."""
        await self._request.__aexit__(None, None, None)


class _Pinned:
    """A client for one origin, with the time at which its address is due for another look."""

    __slots__ = ("address", "client", "due")

    def __init__(self, address: str, client: Client, due: float) -> None:
        self.address = address
        self.client = client
        self.due = due


class Clock(Protocol):
    def monotonic(self) -> float: ...


class Upstream:
    """Opens calls. Keeps a client per origin; bounded by the offers of the snapshot."""

    def __init__(self, *, connect_timeout_s: float, clock: Clock) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._pinned: dict[Origin, _Pinned] = {}
        self._origins: dict[tuple[str, bool], Origin] = {}
        self._opening: dict[Origin, asyncio.Task[_Pinned]] = {}

    async def open(self, call: UpstreamCall, *, approved: bool) -> Answer:
        """Send the call and wait for the head of the answer."""
        pinned = self._pinned.get(origin := self._origin(call.url, approved=approved))
        if pinned is None or pinned.due <= self._clock.monotonic():
            pinned = await self._pin(origin)
        request = (
            pinned.client.post(call.url)
            .headers(call.headers)
            .body_bytes(call.body)
            .streamed_read_buffer_limit(0)
            .build_streamed()
        )
        try:
            response = await request.__aenter__()
        except (ConnectError, ConnectTimeoutError) as problem:
            raise ConnectFailed(_causes(problem)) from None
        except RequestTimeoutError as problem:
            raise Timeout(_causes(problem)) from None
        except PyreqwestError as problem:
            raise StreamBroken(_causes(problem), after_first_byte=False) from None
        return Answer(request, response)

    async def close(self) -> None:
        """Close every client; the interpreter must not end with one open."""
        for pinned in self._pinned.values():
            await pinned.client.close()
        self._pinned.clear()

    def _origin(self, url: str, *, approved: bool) -> Origin:
        known = self._origins.get((url, approved))
        if known is None:
            try:
                known = egress.origin_of(url, approved=approved)
            except EgressRefused as refusal:
                raise ConnectFailed(str(refusal)) from None
            if len(self._origins) > 10_000:
                self._origins.clear()
            self._origins[(url, approved)] = known
        return known

    async def _pin(self, origin: Origin) -> _Pinned:
        """Resolve and check once for all who wait; a changed address gets a new client."""
        task = self._opening.get(origin)
        if task is None:
            task = asyncio.create_task(self._resolve(origin))
            self._opening[origin] = task
            task.add_done_callback(lambda _: self._opening.pop(origin, None))
        try:
            return await asyncio.shield(task)
        except (EgressRefused, socket.gaierror, OSError) as problem:
            raise ConnectFailed(f"{origin.host}: {problem}") from None

    async def _resolve(self, origin: Origin) -> _Pinned:
        address = await egress.resolve(origin)
        due = self._clock.monotonic() + RESOLVE_EVERY_S
        known = self._pinned.get(origin)
        if known is not None and known.address == address:
            known.due = due
            return known
        pinned = _Pinned(address, self._client(origin, address), due)
        # Calls that run on the old client keep it alive until they end.
        self._pinned[origin] = pinned
        return pinned

    def _client(self, origin: Origin, address: str) -> Client:
        builder = (
            ClientBuilder()
            .follow_redirects(False)
            .no_proxy()
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .http1_only()
            .http1_lower_case_headers()
            .user_agent("tokenhouse")
            .tcp_nodelay(True)
            .connect_timeout(timedelta(seconds=self._connect_timeout_s))
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .https_only(origin.scheme == "https")
        )
        if address != origin.host:
            builder = builder.resolve(origin.host, address, origin.port)
        return builder.build()


def _causes(problem: PyreqwestError) -> str:
    """The innermost cause, which names the reason; never the URL or a header."""
    details = getattr(problem, "details", None) or {}
    causes = details.get("causes") or []
    return str(causes[-1]["message"]) if causes else problem.message
