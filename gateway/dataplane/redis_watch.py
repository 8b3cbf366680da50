"""Asks Redis every second whether holds could be placed now: whether it takes a write, whether it
knows the registers' epochs, and what time it is. What it finds is what `/ready` says.
"""

import asyncio
import logging
import os

from billing import registers
from gateway.clocks.house_clock import HouseClock
from gateway.dataplane.redis.pipe import NO_ANSWER, RedisPipe
from gateway.dataplane.snapshots.snapshot import Snapshots

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
PROBE_KEPT_S = 60


class RedisWatch:
    """`trouble` says why holds cannot be placed; empty where they can."""

    def __init__(self, *, pipe: RedisPipe, snapshots: Snapshots, clock: HouseClock) -> None:
        self._pipe = pipe
        self._snapshots = snapshots
        self._clock = clock
        self._watching: asyncio.Task[None] | None = None
        self._found = "Redis was not asked yet"

    @property
    def trouble(self) -> str:
        return self._pipe.trouble or self._found

    async def start(self) -> None:
        await self._look()
        self._watching = asyncio.create_task(self._watch())

    def close(self) -> None:
        if self._watching:
            self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look()

    async def _look(self) -> None:
        try:
            await self._compare_clocks()
            await self._pipe.command("SET", f"probe:{os.getpid()}", "1", "EX", PROBE_KEPT_S)
            found = "" if await self._is_any_warm() else "the registers are being rebuilt"
        except NO_ANSWER as problem:
            found = str(problem)
        if found != self._found:
            logger.warning("holds: %s", found or "can be placed")
        self._found = found

    async def _compare_clocks(self) -> None:
        """The way there and back taken as equally long, which may be off by half of it."""
        before_ms = self._clock.now_ms()
        seconds, micros = await self._pipe.command("TIME")
        took_ms = self._clock.now_ms() - before_ms
        redis_ms = int(seconds) * 1000 + int(micros) // 1000 + took_ms // 2
        self._clock.compare(redis_ms, uncertain_ms=took_ms // 2 + 1)

    async def _is_any_warm(self) -> bool:
        """One cold shard is no reason to send everybody elsewhere; all of them are."""
        epochs = self._snapshots.current.epochs
        if not epochs:
            return False
        keys = [registers.epoch_key(registers.tag_of_shard(shard)) for shard in epochs]
        known = await self._pipe.command("MGET", *keys)
        return any(
            epoch.encode() == known_epoch
            for epoch, known_epoch in zip(epochs.values(), known, strict=True)
        )
