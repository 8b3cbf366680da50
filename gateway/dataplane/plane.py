"""One data plane process: its parts, their start and their end."""

import asyncio
import logging
from typing import Any

from billing import holds
from gateway.dataplane.auth import UnknownKeys
from gateway.dataplane.budget import Budget
from gateway.dataplane.leases import Leases
from gateway.dataplane.limits import Limits
from gateway.dataplane.pipeline import Pipeline
from gateway.dataplane.pulse import Pulse
from gateway.dataplane.redis_pipe import RedisAddress, RedisAway, RedisPipe
from gateway.dataplane.relay import Relay
from gateway.dataplane.settler import Settler
from gateway.dataplane.snapshot import Snapshots, Source
from gateway.dataplane.spool import Spool
from gateway.dataplane.stopwatch import Clock
from gateway.dataplane.upstream import Upstream
from gateway.dataplane.watchdog import Watchdog
from gateway.estimates.ratios import Ratios
from gateway.routing.breaker import Breaker

logger = logging.getLogger(__name__)

CLOCK_EVERY_S = 5.0
LAST_WORDS_S = 5.0


class Plane:
    """Built and started on the loop that serves; `pipeline` is what requests go through."""

    def __init__(self, *, redis_url: str, limits: Limits, source: Source, clock: Clock) -> None:
        self.limits = limits
        self.clock = clock
        self.pulse = Pulse(clock)
        self.pipe = RedisPipe(
            RedisAddress.from_url(redis_url),
            holds.scripts(),
            timeout_s=limits.redis_timeout_s,
        )
        self.snapshots = Snapshots(source, pipe=self.pipe, clock=clock)
        self.spool = Spool(limits.spool_dir)
        self.settler = Settler(
            pipe=self.pipe, snapshots=self.snapshots, spool=self.spool, clock=clock
        )
        self.leases = Leases(pipe=self.pipe, snapshots=self.snapshots, clock=clock)
        self.upstream = Upstream(connect_timeout_s=limits.connect_timeout_s, clock=clock)
        self.budget = Budget(limits.held_bytes_max)
        self.clock_skew_ms: int | None = None
        self.stopping = False
        self._serving: dict[asyncio.Task[Any], Watchdog] = {}
        self._watching_clock: asyncio.Task[None] | None = None
        self.ratios = Ratios(clock.monotonic)
        breaker = Breaker()
        unknown_keys = UnknownKeys(self.snapshots.find_key, monotonic=clock.monotonic)
        self.snapshots.on_change = unknown_keys.forget
        self.pipeline = Pipeline(
            pipe=self.pipe,
            snapshots=self.snapshots,
            unknown_keys=unknown_keys,
            settler=self.settler,
            leases=self.leases,
            relay=Relay(
                upstream=self.upstream,
                breaker=breaker,
                limits=limits,
                clock=clock,
                pulse=self.pulse,
            ),
            breaker=breaker,
            ratios=self.ratios,
            limits=limits,
            clock=clock,
        )

    async def start(self) -> None:
        self.pulse.start()
        self.spool.open()
        await self.pipe.start()
        await self.snapshots.start()
        self.settler.start()
        self.leases.start()
        await self._look_at_clock()
        self._watching_clock = asyncio.create_task(self._watch_clock())

    def begin_stop(self) -> None:
        """Take no new requests; the open ones have their time, then they are ended."""
        if not self.stopping:
            self.stopping = True
            asyncio.get_running_loop().call_later(self.limits.shutdown_s, self._end_all)

    def _end_all(self) -> None:
        for watchdog in list(self._serving.values()):
            watchdog.end_now()

    async def stop(self) -> None:
        """Wait for what is still open, settle everything, close."""
        self.begin_stop()
        if self._serving:
            limit_s = self.limits.shutdown_s + LAST_WORDS_S
            _, late = await asyncio.wait(list(self._serving), timeout=limit_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=LAST_WORDS_S)
        if self._watching_clock:
            self._watching_clock.cancel()
        self.pulse.stop()
        await self.leases.close()
        await self.settler.close()
        await self.snapshots.close()
        self.upstream.close()
        await self.pipe.close()
        self.spool.close()

    def serving(self, task: "asyncio.Task[Any]", watchdog: Watchdog) -> None:
        self._serving[task] = watchdog

    def served(self, task: "asyncio.Task[Any]") -> None:
        self._serving.pop(task, None)

    def unready(self) -> str:
        """Why this process should get no requests; empty where it should."""
        if self.stopping:
            return "stopping"
        if not self.snapshots.loaded:
            return "no snapshot yet: Postgres does not answer"
        if not self.pipe.connected:
            return "Redis does not answer"
        skew_ms = self.clock_skew_ms
        if skew_ms is None or abs(skew_ms) > self.limits.clock_skew_ms_max:
            return f"the clock differs from Redis' by {skew_ms} ms"
        return ""

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_EVERY_S)
            await self._look_at_clock()

    async def _look_at_clock(self) -> None:
        try:
            self.clock_skew_ms = await self._skew_ms()
        except RedisAway:
            logger.info("Redis' clock could not be read")

    async def _skew_ms(self) -> int:
        """How far we are from Redis' clock, the way there and back taken as equally long."""
        before_ms = self.clock.now_ms()
        seconds, micros = await self.pipe.command("TIME")
        after_ms = self.clock.now_ms()
        redis_ms = int(seconds) * 1000 + int(micros) // 1000
        return (before_ms + after_ms) // 2 - redis_ms
