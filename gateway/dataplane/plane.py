"""One data plane process: its parts, their start and their end."""

import asyncio
import logging
from typing import Any

from billing.holding import holds
from gateway.clocks.house_clock import HouseClock
from gateway.clocks.pulse import Pulse
from gateway.clocks.stopwatch import Clock
from gateway.dataplane.admission import Admission
from gateway.dataplane.auth import UnknownKeys
from gateway.dataplane.inbound import descriptors
from gateway.dataplane.inbound.idle_connections import Door
from gateway.dataplane.inbound.memory_budget import Budget
from gateway.dataplane.inbound.watchdog import Watchdog
from gateway.dataplane.limits import Limits
from gateway.dataplane.pipeline import Pipeline
from gateway.dataplane.redis.pipe import RedisAddress, RedisPipe
from gateway.dataplane.redis.stale_credit import StaleCredit
from gateway.dataplane.redis_watch import RedisWatch
from gateway.dataplane.relay import Relay
from gateway.dataplane.settling.leases import Leases
from gateway.dataplane.settling.lost_counts import Afterwards
from gateway.dataplane.settling.recounting import Recounting
from gateway.dataplane.settling.settler import Settler
from gateway.dataplane.settling.spool import Spool
from gateway.dataplane.snapshots.snapshot import Snapshots, Source
from gateway.errors import Unavailable
from gateway.estimates.ratios import Ratios
from gateway.routing.breaker import Breaker
from providers.outbound.upstream import Upstream

logger = logging.getLogger(__name__)

LAST_WORDS_S = 5.0


class Plane:
    """Built and started on the loop that serves; `pipeline` is what requests go through."""

    def __init__(self, *, redis_url: str, limits: Limits, source: Source, clock: Clock) -> None:
        self.limits = limits
        self.clock = clock = HouseClock(clock, skew_ms_max=limits.clock_skew_ms_max)
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
        self.redis_watch = RedisWatch(pipe=self.pipe, snapshots=self.snapshots, clock=clock)
        room = descriptors.room(descriptors.raise_limit(), wished=limits.connections_max)
        self.door = Door(room)
        self.stopping = False
        self._serving: dict[asyncio.Task[Any], Watchdog] = {}
        self.ratios = Ratios(clock.monotonic)
        breaker = Breaker()
        self._unknown_keys = UnknownKeys(self.snapshots.find_key, monotonic=clock.monotonic)
        self.snapshots.on_change = self._take_snapshot
        self.pipeline = Pipeline(
            pipe=self.pipe,
            snapshots=self.snapshots,
            unknown_keys=self._unknown_keys,
            admission=Admission(
                pipe=self.pipe,
                snapshots=self.snapshots,
                settler=self.settler,
                ratios=self.ratios,
                limits=limits,
                clock=clock,
                stale_credit=StaleCredit(
                    self.snapshots.credit_version, pipe=self.pipe, monotonic=clock.monotonic
                ),
            ),
            settler=self.settler,
            leases=self.leases,
            relay=Relay(
                upstream=self.upstream,
                breaker=breaker,
                limits=limits,
                clock=clock,
                pulse=self.pulse,
                afterwards=Afterwards(self.upstream),
                recounting=Recounting(self.upstream, clock.monotonic),
            ),
            breaker=breaker,
            limits=limits,
            clock=clock,
            check=self.check,
        )

    def _take_snapshot(self) -> None:
        self._unknown_keys.forget()
        self.ratios.share(self.snapshots.current.counted_texts)

    async def start(self) -> None:
        self.pulse.start()
        self.door.start()
        try:
            self.spool.open()
        except OSError:
            # Nothing is admitted until there is room: the settler goes on trying.
            logger.exception("the spool could not be opened")
        await self.pipe.start()
        await self.snapshots.start()
        self.settler.start()
        self.leases.start()
        await self.redis_watch.start()

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
        self.redis_watch.close()
        self.pulse.stop()
        self.door.close()
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
        return self.redis_watch.trouble or self.clock.trouble or self.settler.trouble

    def check(self) -> None:
        """Unavailable where this process could not book what it would serve, or does not know the
        time. Whether Redis takes holds, each hold finds out."""
        if self.clock.trouble:
            raise Unavailable(
                f"Requests cannot be admitted: {self.clock.trouble}. Try again shortly.",
                code="clock_wrong",
            )
        if self.settler.trouble:
            raise Unavailable(
                f"Requests cannot be admitted: {self.settler.trouble}. Try again shortly.",
                code="spool_unavailable",
            )
