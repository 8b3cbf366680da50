"""Keeps the holds of open requests alive, with what was delivered so far.

Every few seconds each open request renews its lease and leaves the event that expiry would book
if this process fell silent: so a crash costs the house at most one such interval.
"""

import asyncio
import logging
from typing import Any

from billing import holds
from billing.holds import SettledAttempt
from billing.registers import shard_of
from gateway.dataplane import settlement
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.redis_pipe import RedisPipe
from gateway.dataplane.snapshot import Snapshots
from gateway.dataplane.stopwatch import Clock

logger = logging.getLogger(__name__)

RENEW_EVERY_S = 5.0


class Leases:
    """The open requests of this process by their id."""

    def __init__(self, *, pipe: RedisPipe, snapshots: Snapshots, clock: Clock) -> None:
        self._pipe = pipe
        self._snapshots = snapshots
        self._clock = clock
        self._open: dict[str, Exchange] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._learning: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._renewing = asyncio.create_task(self._renew_for_ever())

    async def close(self) -> None:
        for task in (self._renewing, self._learning):
            if task:
                task.cancel()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, exchange: Exchange) -> None:
        self._open[exchange.request_id] = exchange

    def remove(self, exchange: Exchange) -> None:
        self._open.pop(exchange.request_id, None)

    def renew(self) -> None:
        """Send a checkpoint for each open request; nobody waits for the answers."""
        for exchange in list(self._open.values()):
            self._pipe.run(self._call(exchange), repeatable=True).add_done_callback(self._look)

    def _call(self, exchange: Exchange) -> holds.Call:
        now_ms = self._clock.now_ms()
        current = exchange.last
        charge = settlement.charge_of(exchange, current)
        finished = [
            settlement.event_of(
                exchange, attempt, settlement.charge_of(exchange, attempt), now_ms=now_ms
            )
            for attempt in exchange.attempts[:-1]
        ]
        tenant = exchange.principal.tenant_id
        return holds.checkpoint_call(
            tenant=tenant,
            request_id=exchange.request_id,
            now_ms=now_ms,
            lease_until_ms=now_ms + holds.LEASE_MS,
            so_far=SettledAttempt(
                settlement.event_of(exchange, current, charge, now_ms=now_ms),
                charge.tenant_pico // 1000,
                exchange.hold.not_in(current.candidate),
            ),
            epoch=self._snapshots.current.epochs.get(shard_of(tenant), ""),
            finished=finished,
        )

    def _look(self, done: "asyncio.Future[Any]") -> None:
        """A lease that was not renewed is no reason to stop: its settle will be a late one."""
        if done.cancelled():
            return
        if done.exception() is not None:
            logger.warning("a lease could not be renewed: %s", done.exception())
        elif done.result()[0] == b"cold" and (self._learning is None or self._learning.done()):
            # Rebuilt meanwhile: renewed under its new epoch, the lease need not run out.
            self._learning = asyncio.create_task(self._learn())

    async def _learn(self) -> None:
        before = self._snapshots.current.epochs
        await self._snapshots.reload()
        if self._snapshots.current.epochs != before:
            self._try_renew()

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            self._try_renew()

    def _try_renew(self) -> None:
        try:
            self.renew()
        except Exception:
            logger.exception("leases could not be renewed")
