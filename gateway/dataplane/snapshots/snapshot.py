"""What the data plane routes and admits by, frozen, and the keeper that renews it.

Loaded from Postgres in a thread of its own: at start, whenever the version counter in Redis has
moved (looked at every second), when Redis says that our epoch is not its own, and in any case
every 15 seconds. While Postgres is away the last one stays in force.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from billing.registers import SNAPSHOT_VERSION_KEY
from gateway.clocks.stopwatch import Clock
from gateway.dataplane.auth import KeyHash, Principal
from gateway.dataplane.redis.pipe import NO_ANSWER, RedisPipe
from gateway.errors import Unavailable
from gateway.routing.names import OffersByModel
from gateway.routing.policies import Speeds
from providers.outbound.process_pauses import once_more_if_still

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_EVERY_S = 1.0
RELOAD_EVERY_S = 15.0
# Cold shards make many requests ask for a reload at once; they share one, and not too often.
FORCED_EVERY_S = 0.25
# A caller whose key is not in the snapshot waits so long for Postgres, then hears 503. Long enough
# for a connection to be opened on a busy machine.
FIND_KEY_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent view. `epochs` maps a shard to the epoch that Redis must know;
    `counted_texts` are by model and sku, packed."""

    keys: Mapping[KeyHash, Principal] = field(default_factory=dict)
    offers_by_model: OffersByModel = field(default_factory=OffersByModel)
    speeds: Speeds = field(default_factory=dict)
    epochs: Mapping[int, str] = field(default_factory=dict)
    counted_texts: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    loaded_ms: int = 0


class SourceAway(Exception):
    """The database does not answer."""


class Source(Protocol):
    """Where a snapshot comes from. The calls block and run in the keeper's thread."""

    def load(self, now_ms: int) -> Snapshot: ...

    def find_key(self, key_hash: KeyHash) -> Principal | None: ...

    def credit_version(self, tenant: int) -> int: ...


class Snapshots:
    """Holds the snapshot in force as `current`; its background task renews it."""

    def __init__(self, source: Source, *, pipe: RedisPipe, clock: Clock) -> None:
        self._source = source
        self._pipe = pipe
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot")
        self._lookups = ThreadPoolExecutor(max_workers=2, thread_name_prefix="key-lookup")
        self._version: bytes | None = None
        self._loaded_at: float | None = None
        self._reloading: asyncio.Task[bool] | None = None
        self._following: asyncio.Task[None] | None = None
        self.current = Snapshot()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def loaded(self) -> bool:
        return self._loaded_at is not None

    async def start(self) -> None:
        """Load once; without Postgres start all the same and keep trying."""
        await self.reload()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._following:
            self._following.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def reload(self) -> None:
        """A fresh snapshot, shared by all who ask at the same time. Never raises."""
        if self._reloading is None or self._reloading.done():
            recent = self._loaded_at is not None and (
                self._clock.monotonic() - self._loaded_at < FORCED_EVERY_S
            )
            if recent:
                return
            self._reloading = asyncio.create_task(self._load())
        await asyncio.shield(self._reloading)

    async def find_key(self, key_hash: KeyHash) -> Principal | None:
        """The key's principal straight from Postgres; Unavailable where that is away, or does not
        answer in time. Who waits behind a lookup that hangs is told so no later."""
        try:
            return await self._looked_up(partial(self._source.find_key, key_hash))
        except (SourceAway, TimeoutError) as problem:
            logger.warning("a key could not be looked up: %s", str(problem) or "no answer in time")
            raise Unavailable(
                "The key could not be checked: the database does not answer. Try again shortly.",
                code="database_unavailable",
            ) from None

    async def credit_version(self, tenant: int) -> int | None:
        """That of a tenant's credit in Postgres; None where it does not answer in time."""
        try:
            return await self._looked_up(partial(self._source.credit_version, tenant))
        except (SourceAway, TimeoutError):
            return None

    async def _looked_up(self, look: Callable[[], T]) -> T:
        """What Postgres says; TimeoutError where it is silent."""
        loop = asyncio.get_running_loop()

        async def ask() -> T:
            async with asyncio.timeout(FIND_KEY_TIMEOUT_S):
                return await loop.run_in_executor(self._lookups, look)

        return await once_more_if_still(
            ask, limit_s=FIND_KEY_TIMEOUT_S, monotonic=self._clock.monotonic
        )

    async def _load(self) -> bool:
        loop = asyncio.get_running_loop()
        now_ms = self._clock.now_ms()
        try:
            fresh = await loop.run_in_executor(self._thread, self._source.load, now_ms)
        except Exception:
            logger.exception("no new snapshot; the last one stays in force")
            return False
        self.current = fresh
        self._loaded_at = self._clock.monotonic()
        self.on_change()
        return True

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Load anew where the version has moved, or the snapshot has aged."""
        try:
            version = await self._pipe.command("GET", SNAPSHOT_VERSION_KEY)
        except NO_ANSWER:
            version = self._version
        aged = self._loaded_at is None or (
            self._clock.monotonic() - self._loaded_at >= RELOAD_EVERY_S
        )
        if version == self._version and not aged:
            return
        if self._reloading is not None and not self._reloading.done():
            # It may have begun before the change that the version tells of.
            await asyncio.shield(self._reloading)
        self._reloading = asyncio.create_task(self._load())
        if await asyncio.shield(self._reloading):
            self._version = version
