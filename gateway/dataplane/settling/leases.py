"""Keeps the holds of open requests alive, with what was delivered so far.

Every few seconds each open request renews its lease and leaves the event that expiry would book
if this process fell silent; one that has shown more since does so each second. So a crash costs
the house at most a second of what was delivered, and of what an in-house worker delivered nothing:
it is asked.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from billing.holding import holds
from billing.holding.holds import SettledAttempt
from billing.registers import shard_of
from gateway.clocks.stopwatch import Clock
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.redis.pipe import RedisPipe
from gateway.dataplane.settling import charges
from gateway.dataplane.snapshots.snapshot import Snapshots

logger = logging.getLogger(__name__)

RENEW_EVERY_S: Final = 5.0
CHECKPOINT_EVERY_S: Final = 1.0
# Of those whose lease is not due; the others wait for the next second.
CHECKPOINTS_AT_ONCE_MAX: Final = 200


class Said(NamedTuple):
    """The last checkpoint of a request: how much it had shown, and when."""

    size: int
    at: float


class Leases:
    """The open requests of this process by their id."""

    def __init__(self, *, pipe: RedisPipe, snapshots: Snapshots, clock: Clock) -> None:
        self._pipe = pipe
        self._snapshots = snapshots
        self._clock = clock
        self._open: dict[str, Exchange] = {}
        self._said: dict[str, Said] = {}
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
        self._said[exchange.request_id] = Said(0, self._clock.monotonic())

    def remove(self, exchange: Exchange) -> None:
        self._open.pop(exchange.request_id, None)
        self._said.pop(exchange.request_id, None)

    def renew(self) -> None:
        """Send a checkpoint for each open request; nobody waits for the answers."""
        for exchange in list(self._open.values()):
            self._send(exchange)

    def renew_due(self) -> None:
        """The same for those whose lease is due, and for some of those that have shown more."""
        now = self._clock.monotonic()
        left = CHECKPOINTS_AT_ONCE_MAX
        for request_id, exchange in list(self._open.items()):
            said = self._said[request_id]
            if now - said.at >= RENEW_EVERY_S:
                self._send(exchange)
            elif left and exchange.last.shown.size != said.size:
                left -= 1
                self._send(exchange)

    def _send(self, exchange: Exchange) -> None:
        shown = exchange.last.shown.size
        self._said[exchange.request_id] = Said(shown, self._clock.monotonic())
        self._pipe.run(self._call(exchange), repeatable=True).add_done_callback(self._look)

    def _call(self, exchange: Exchange) -> holds.Call:
        now_ms = self._clock.now_ms()
        current = exchange.last
        charge = charges.charge_of(exchange, current)
        finished = [
            charges.event_of(exchange, attempt, charges.charge_of(exchange, attempt), now_ms=now_ms)
            for attempt in exchange.attempts[:-1]
        ]
        tenant = exchange.principal.tenant_id
        return holds.checkpoint_call(
            tenant=tenant,
            request_id=exchange.request_id,
            now_ms=now_ms,
            lease_until_ms=now_ms + holds.LEASE_MS,
            so_far=SettledAttempt(
                charges.event_of(exchange, current, charge, now_ms=now_ms),
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
        elif holds.is_cold(done.result()) and (self._learning is None or self._learning.done()):
            # Rebuilt meanwhile: renewed under its new epoch, the lease need not run out.
            self._learning = asyncio.create_task(self._learn())

    async def _learn(self) -> None:
        before = self._snapshots.current.epochs
        await self._snapshots.reload()
        if self._snapshots.current.epochs != before:
            self._try(self.renew)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY_S)
            self._try(self.renew_due)

    def _try(self, renew: Callable[[], None]) -> None:
        try:
            renew()
        except Exception:
            logger.exception("leases could not be renewed")
