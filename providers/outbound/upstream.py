"""The one client that calls providers and workers.

A pool of connections per origin, to the address that egress has checked: names are resolved here
once a minute, never by the connect. No redirects (they would carry the credential to another
host), no proxies, no decompression, TLS always verified. No retry, but for a kept connection
that the upstream had closed before it heard of the request; no time limit beyond the connect,
which the name's resolution is part of. Failures come out as `providers.errors`.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from providers.chat import UpstreamCall
from providers.errors import ConnectFailed, OwnTrouble, ProviderError, StreamBroken
from providers.outbound import egress, http1
from providers.outbound.egress import EgressRefused, Origin
from providers.outbound.http1 import Broken, Connection, Pool
from providers.outbound.local_errors import is_own
from providers.outbound.process_pauses import once_more_if_still

RESOLVE_EVERY_S = 60.0
# Where our resolver did not answer: until then the address that it named last is called.
RESOLVE_AGAIN_S = 5.0
KNOWN_RESOLVE_SHARE = 0.5
TARGETS_MAX = 10_000


class Clock(Protocol):
    def monotonic(self) -> float: ...


class Answer:
    """An upstream answer whose head has arrived. Close it, whatever happened."""

    __slots__ = ("_clock", "_connection", "_pool", "status")

    def __init__(self, connection: Connection, pool: Pool, clock: Clock) -> None:
        self._connection = connection
        self._pool = pool
        self._clock = clock
        self.status = connection.status

    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        return self._connection.headers

    async def read(self) -> bytes | None:
        """The next bytes as they come, None at the end; StreamBroken where it is cut."""
        try:
            return await self._connection.read()
        except Broken as problem:
            raise StreamBroken(str(problem), after_first_byte=True) from None

    async def whole(self, *, bytes_max: int) -> bytes | None:
        """All that is left of the body; None where it is longer than that."""
        body = bytearray()
        while (piece := await self.read()) is not None:
            body += piece
            if len(body) > bytes_max:
                return None
        return bytes(body)

    def close(self) -> None:
        """Keep the connection after a whole answer; before its end this aborts the request."""
        self._pool.give_back(self._connection, self._clock.monotonic())


class _Target(NamedTuple):
    """A URL taken apart: where to connect, and the first lines of the request."""

    origin: Origin
    head: str


class _Pinned(NamedTuple):
    pool: Pool
    due: float


class Upstream:
    """Opens calls. Keeps a pool per origin; bounded by the offers of the snapshot."""

    def __init__(self, *, connect_timeout_s: float, clock: Clock) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._tls: ssl.SSLContext | None = None
        self._pinned: dict[Origin, _Pinned] = {}
        self._targets: dict[tuple[str, str, bool], _Target] = {}
        self._pinning: dict[Origin, asyncio.Task[_Pinned]] = {}

    async def open(self, call: UpstreamCall, *, approved: bool) -> Answer:
        """Send the call and wait for the head of the answer."""
        target = self._target(call, approved=approved)
        now = self._clock.monotonic()
        pinned = self._pinned.get(target.origin)
        if pinned is None or pinned.due <= now:
            pinned = await self._pin(target.origin)
        head = _head(target, call)
        pool = pinned.pool
        kept = pool.take(now)
        if kept is not None:
            try:
                return await self._exchange(kept, pool, head, call.body)
            except Broken as problem:
                if problem.answered:
                    raise StreamBroken(str(problem), after_first_byte=False) from None
            now = self._clock.monotonic()
        spent_s = self._clock.monotonic() - now
        fresh = await self._connect(pool, timeout_s=self._connect_timeout_s - spent_s)
        try:
            return await self._exchange(fresh, pool, head, call.body)
        except Broken as problem:
            raise StreamBroken(str(problem), after_first_byte=False) from None

    async def _exchange(
        self, connection: Connection, pool: Pool, head: bytes, body: bytes
    ) -> Answer:
        try:
            connection.send(head, body)
            await connection.answer()
        except BaseException:
            # Whoever stops waiting, for whatever reason, wants the upstream to stop as well.
            connection.abort()
            raise
        return Answer(connection, pool, self._clock)

    async def _connect(self, pool: Pool, *, timeout_s: float) -> Connection:
        limit_s = max(timeout_s, 0.0)
        try:
            return await once_more_if_still(
                partial(pool.connect, timeout_s=limit_s),
                limit_s=limit_s,
                monotonic=self._clock.monotonic,
            )
        except TimeoutError:
            raise ConnectFailed(f"{pool.origin.host} did not accept in time") from None
        except (OSError, ssl.CertificateError) as problem:
            raise _trouble(pool.origin.host, problem) from None

    def close(self) -> None:
        for pinned in self._pinned.values():
            pinned.pool.close()
        self._pinned.clear()

    def _target(self, call: UpstreamCall, *, approved: bool) -> _Target:
        named = (call.method, call.url, approved)
        known = self._targets.get(named)
        if known is None:
            try:
                origin = egress.origin_of(call.url, approved=approved)
            except EgressRefused as refusal:
                raise ConnectFailed(str(refusal)) from None
            if len(self._targets) >= TARGETS_MAX:
                self._targets.clear()
            known = _Target(origin, _first_lines(origin, call.method, call.url))
            self._targets[named] = known
        return known

    async def _pin(self, origin: Origin) -> _Pinned:
        """Resolve and check once for all who wait; a changed address gets a new pool."""
        task = self._pinning.get(origin)
        if task is None:
            task = asyncio.create_task(self._resolve(origin))
            self._pinning[origin] = task
            task.add_done_callback(lambda _: self._pinning.pop(origin, None))
        # Where an address is known, some of the limit is left to connect to it.
        share = KNOWN_RESOLVE_SHARE if origin in self._pinned else 1.0
        try:
            async with asyncio.timeout(self._connect_timeout_s * share):
                return await asyncio.shield(task)
        except EgressRefused as problem:
            raise ConnectFailed(f"{origin.host}: {problem}") from None
        except TimeoutError:
            silent = socket.gaierror(socket.EAI_AGAIN, "its name was not resolved in time")
            return self._pinned_before(origin, silent)
        except OSError as problem:
            return self._pinned_before(origin, problem)

    def _pinned_before(self, origin: Origin, problem: OSError) -> _Pinned:
        """Our resolver is away, the host need not be: it was checked a while ago."""
        known = self._pinned.get(origin)
        if known is None or not is_own(problem):
            raise _trouble(origin.host, problem) from None
        pinned = _Pinned(known.pool, self._clock.monotonic() + RESOLVE_AGAIN_S)
        self._pinned[origin] = pinned
        return pinned

    async def _resolve(self, origin: Origin) -> _Pinned:
        address = await egress.resolve(origin)
        known = self._pinned.get(origin)
        pool = known.pool if known is not None and known.pool.address == address else None
        if pool is None:
            if self._tls is None and origin.scheme == "https":
                self._tls = http1.tls_context()
            pool = Pool(origin, address, self._tls)
        pinned = _Pinned(pool, self._clock.monotonic() + RESOLVE_EVERY_S)
        if known is not None and known.pool is not pool:
            known.pool.close()
        self._pinned[origin] = pinned
        return pinned


def _first_lines(origin: Origin, method: str, url: str) -> str:
    parts = urlsplit(url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    is_default = origin.port == (443 if origin.scheme == "https" else 80)
    return (
        f"{method} {path} HTTP/1.1\r\n"
        f"host: {host if is_default else f'{host}:{origin.port}'}\r\n"
        "user-agent: tokenhouse\r\naccept-encoding: identity\r\n"
    )


def _head(target: _Target, call: UpstreamCall) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in call.headers.items()]
    head = f"{target.head}{''.join(lines)}content-length: {len(call.body)}\r\n\r\n"
    if head.count("\n") != len(lines) + target.head.count("\n") + 2:
        raise ConnectFailed("a header for the upstream holds a line break")
    return head.encode("latin-1", errors="replace")


def _trouble(host: str, problem: OSError | ssl.CertificateError) -> ProviderError:
    text = f"{host}: {_words(problem)}"
    return OwnTrouble(text) if is_own(problem) else ConnectFailed(text)


def _words(problem: Exception) -> str:
    """The reason in words; a certificate's problem keeps its own text."""
    return (
        getattr(problem, "verify_message", "") or getattr(problem, "strerror", "") or str(problem)
    )
