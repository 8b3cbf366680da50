"""The hot path's connection to Redis: every command of one loop tick leaves in one write.

One connection per process. Scripts are loaded on each connect and NOSCRIPT is retried once. A
command that was in flight when the connection broke is sent again only if its caller said that
it may be (place, settle: idempotent by id); the others fail. While Redis is away commands fail
at once, and a Redis that refuses them because of its own state is as good as away. It knows no
money: what the replies mean is `billing.holding.holds`' affair.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from billing.redis import error_replies as redis_refusals

logger = logging.getLogger(__name__)

Argument = bytes | str | int
RECONNECT_FIRST_S = 0.05
RECONNECT_MAX_S = 1.0
# Behind the same name there may be a new primary by now, which only a new connection finds.
REPLICA = frozenset({"READONLY", "MASTERDOWN"})


class RedisAway(Exception):
    """No answer. `sent` tells whether Redis may have carried the command out all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class RedisRefuses(RedisAway):
    """It answered that it cannot now, whatever is asked: nothing was carried out."""

    def __init__(self, reply: hiredis.ReplyError, why: str) -> None:
        super().__init__(f"Redis refuses: {why} ({redis_refusals.code_of(str(reply))})", sent=False)


# For whom it makes no difference why there is no answer.
NO_ANSWER = (RedisAway, hiredis.ReplyError)


class ScriptLike(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def sha1(self) -> str: ...


class CallLike(Protocol):
    @property
    def script(self) -> ScriptLike: ...
    @property
    def keys(self) -> Sequence[bytes | str]: ...
    @property
    def args(self) -> Sequence[Argument]: ...


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis listens. A unix socket wins over host and port."""

    path: str = ""
    host: str = "127.0.0.1"
    port: int = 6379
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def from_url(cls, url: str) -> "RedisAddress":
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.scheme == "unix":
            database = int(query.get("db", "0"))
            return cls(
                path=unquote(parts.path), database=database, username=user, password=password
            )
        if parts.scheme != "redis":
            raise ValueError(f"the data plane speaks redis:// and unix://, not {parts.scheme}://")
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            database=int(parts.path.strip("/") or query.get("db", "0")),
            username=user,
            password=password,
        )


@dataclass(slots=True)
class _Pending:
    """One command on its way: what was sent, who waits, until when."""

    packed: bytes
    future: asyncio.Future[Any]
    due: float
    script: ScriptLike | None = None
    repeatable: bool = False
    retried: bool = False


class RedisPipe(asyncio.Protocol):
    """See the module. All methods belong to the loop that called `start`."""

    def __init__(
        self,
        address: RedisAddress,
        scripts: Sequence[ScriptLike],
        *,
        timeout_s: float,
        pending_max: int = 20_000,
    ) -> None:
        self._address = address
        self._scripts = tuple(scripts)
        self._timeout_s = timeout_s
        self._pending_max = pending_max
        self._inflight: deque[_Pending] = deque()
        self._waiting: deque[_Pending] = deque()
        self._outbox: list[bytes] = []
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._connected = False
        self._hopeful = True  # a reconnect has not failed yet: commands may wait for it
        self._closed = False
        self._was_overdue = False
        self._left_replica_at = 0.0
        self._away_because = ""
        self._reconnecting: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def trouble(self) -> str:
        """Why there is no connection; empty where there is one."""
        return "" if self._connected else self._away_because or "Redis does not answer"

    async def start(self) -> None:
        """Try to connect once; without Redis keep trying in the background."""
        self._loop = asyncio.get_running_loop()
        self._watchdog = self._loop.call_later(self._timeout_s / 4, self._check_overdue)
        try:
            await self._connect()
        except (OSError, RedisAway, hiredis.HiredisError) as problem:
            logger.warning("Redis is away: %s", problem)
            self._give_up(problem)
            self._reconnect_later()

    async def close(self) -> None:
        """Fail what is open and hang up."""
        self._closed = True
        if self._watchdog:
            self._watchdog.cancel()
        if self._reconnecting:
            self._reconnecting.cancel()
        if self._transport:
            self._transport.abort()
        self._give_up()

    def run(self, call: CallLike, *, repeatable: bool) -> asyncio.Future[Any]:
        """EVALSHA. The future carries the reply, RedisAway, or the ReplyError of a call that would
        be refused at any time."""
        script = call.script
        packed = _pack(("EVALSHA", script.sha1, len(call.keys), *call.keys, *call.args))
        return self._submit(packed, script=script, repeatable=repeatable)

    def command(self, *parts: Argument) -> asyncio.Future[Any]:
        """Any other command; never sent twice."""
        return self._submit(_pack(parts), script=None, repeatable=False)

    def _submit(
        self, packed: bytes, *, script: ScriptLike | None, repeatable: bool
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if len(self._inflight) + len(self._waiting) >= self._pending_max:
            future.set_exception(RedisAway("too many commands wait for Redis", sent=False))
            return future
        due = self._loop.time() + self._timeout_s
        pending = _Pending(packed, future, due, script, repeatable)
        if self._connected:
            self._send(pending)
        elif self._hopeful and not self._closed:
            self._waiting.append(pending)
        else:
            future.set_exception(RedisAway("Redis is away", sent=False))
        return future

    def _send(self, pending: _Pending) -> None:
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(pending.packed)
        self._inflight.append(pending)

    def _flush(self) -> None:
        if self._outbox and self._transport:
            self._transport.write(b"".join(self._outbox))
        self._outbox.clear()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have asyncio's methods and not its base class.
        self._transport = cast(asyncio.Transport, transport)
        self._reader = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        self._was_overdue = False
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            pending = self._inflight.popleft()
            if not isinstance(reply, hiredis.ReplyError):
                if not pending.future.done():
                    pending.future.set_result(reply)
            elif self._may_load_again(pending, reply):
                self._load_again(pending)
            else:
                self._refused(pending, reply)

    def _refused(self, pending: _Pending, reply: hiredis.ReplyError) -> None:
        why = redis_refusals.state_of(str(reply))
        if not pending.future.done():
            pending.future.set_exception(RedisRefuses(reply, why) if why else reply)
        now = self._loop.time()
        is_replica = redis_refusals.code_of(str(reply)) in REPLICA
        if is_replica and self._transport and now - self._left_replica_at > RECONNECT_MAX_S:
            self._left_replica_at = now
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        was_connected, self._connected = self._connected, False
        lost = list(self._inflight)
        self._inflight.clear()
        self._outbox.clear()
        now = self._loop.time()
        for pending in lost:
            if was_connected and pending.repeatable and pending.due > now and not self._closed:
                self._waiting.append(pending)
            else:
                _fail(pending, "the connection to Redis broke", sent=True)
        if was_connected and not self._closed:
            logger.warning("the connection to Redis broke: %s", exc)
            self._hopeful = True
            self._reconnect_later()

    # connecting

    async def _connect(self) -> None:
        if self._address.path:
            opening = self._loop.create_unix_connection(lambda: self, self._address.path)
            await asyncio.wait_for(opening, self._timeout_s)
        else:
            tcp = self._loop.create_connection(lambda: self, self._address.host, self._address.port)
            await asyncio.wait_for(tcp, self._timeout_s)
        await asyncio.gather(*self._greet())
        self._connected = self._hopeful = True
        while self._waiting:
            self._send(self._waiting.popleft())

    def _greet(self) -> list[asyncio.Future[Any]]:
        """What every connection begins with: who we are, which database, our scripts."""
        address = self._address
        commands: list[tuple[Argument, ...]] = []
        if address.password:
            user = (address.username,) if address.username else ()
            commands.append(("AUTH", *user, address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        commands += [("SCRIPT", "LOAD", script.source) for script in self._scripts]
        commands.append(("PING",))
        due = self._loop.time() + self._timeout_s
        futures = []
        for parts in commands:
            future: asyncio.Future[Any] = self._loop.create_future()
            self._send(_Pending(_pack(parts), future, due))
            futures.append(future)
        return futures

    def _reconnect_later(self) -> None:
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        pause_s = RECONNECT_FIRST_S
        while not self._closed:
            try:
                await self._connect()
            except (OSError, RedisAway, hiredis.HiredisError) as problem:
                if self._hopeful:
                    logger.warning("Redis is away: %s", problem)
                self._give_up(problem)
                if self._transport:
                    self._transport.abort()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RECONNECT_MAX_S)
            else:
                logger.info("connected to Redis again")
                return

    def _give_up(self, problem: Exception | None = None) -> None:
        """Nobody waits for a Redis that does not even take connections."""
        self._hopeful = False
        self._away_because = str(problem) if isinstance(problem, RedisRefuses) else ""
        while self._waiting:
            pending = self._waiting.popleft()
            _fail(pending, "Redis is away", sent=pending.repeatable)

    # limits

    def _check_overdue(self) -> None:
        now = self._loop.time()
        self._watchdog = self._loop.call_later(self._timeout_s / 4, self._check_overdue)
        is_overdue = bool(self._inflight) and self._inflight[0].due <= now
        # A loop that was held up finds its timers due before the answers that lie in the socket:
        # only Redis' silence over a whole round more is Redis' fault.
        if is_overdue and self._was_overdue and self._transport:
            logger.warning("Redis did not answer in time; dropping the connection")
            self._transport.abort()
        self._was_overdue = is_overdue
        while self._waiting and self._waiting[0].due <= now:
            pending = self._waiting.popleft()
            _fail(pending, "Redis did not come back in time", sent=pending.repeatable)

    # scripts

    def _may_load_again(self, pending: _Pending, reply: hiredis.ReplyError) -> bool:
        is_missing = redis_refusals.is_not_loaded(str(reply))
        return is_missing and pending.script is not None and not pending.retried

    def _load_again(self, pending: _Pending) -> None:
        """A SCRIPT FLUSH or a failover emptied the script cache under us."""
        assert pending.script is not None
        pending.retried = True
        loading: asyncio.Future[Any] = self._loop.create_future()
        # A failure to load shows again in the reply of the command itself.
        loading.add_done_callback(lambda done: done.cancelled() or done.exception())
        load = _pack(("SCRIPT", "LOAD", pending.script.source))
        self._send(_Pending(load, loading, pending.due))
        self._send(pending)


def _pack(parts: tuple[Argument, ...]) -> bytes:
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub says 1-tuple
    return packed


def _fail(pending: _Pending, message: str, *, sent: bool) -> None:
    if not pending.future.done():
        pending.future.set_exception(RedisAway(message, sent=sent))
