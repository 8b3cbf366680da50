"""Books what the attempts of a request cost: one settle, never lost, never interrupted.

It runs in the request's task, whoever the caller has become; only a stop of the process can end
that task, and then a task that is referenced here books it again under the same id. What Redis
does not take goes to the spool and is replayed by id.
"""

import asyncio
import logging
from typing import Any

from hiredis import ReplyError

from billing import holds
from billing.errors import Cold, HoldNotOpen
from billing.holds import Settled, SettledAttempt
from billing.registers import shard_of
from gateway.dataplane import counting, settlement
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.redis_pipe import RedisAway, RedisPipe
from gateway.dataplane.snapshot import Snapshots
from gateway.dataplane.spool import RecordRefused, SettleRecord, Spool, SpoolFull
from gateway.dataplane.stopwatch import Clock
from providers.chat import Receipt

logger = logging.getLogger(__name__)

REPLAY_EVERY_S = 2.0
# What a script says of its arguments. A Redis that is full, loading or a replica says otherwise,
# and takes the same settle later.
SCRIPT_FAILED = "ERR "
NOTHING = Settled(charged_nano=0, overage_nano=0, late=False, balance_nano=0)


class Settler:
    """See the module."""

    def __init__(
        self, *, pipe: RedisPipe, snapshots: Snapshots, spool: Spool, clock: Clock
    ) -> None:
        self._pipe = pipe
        self._snapshots = snapshots
        self._spool = spool
        self._clock = clock
        self._running: set[asyncio.Task[Any]] = set()
        self._replaying: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._replaying = asyncio.create_task(self._replay_for_ever())

    async def close(self) -> None:
        """Wait for what is being booked; the spool takes what Redis does not."""
        if self._replaying:
            self._replaying.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def settle(self, exchange: Exchange) -> Receipt:
        """Book every attempt; returns what the caller is told."""
        now_ms = self._clock.now_ms()
        charges = [settlement.charge_of(exchange, attempt) for attempt in exchange.attempts]
        events = [
            (settlement.event_of(exchange, attempt, charge, now_ms=now_ms), charge.charge_nano)
            for attempt, charge in zip(exchange.attempts, charges, strict=True)
        ]
        usage = charges[-1].usage
        record = SettleRecord(
            tenant=exchange.principal.tenant_id,
            key=exchange.principal.key_id,
            request_id=exchange.request_id,
            now_ms=now_ms,
            # What a provider claims beyond the bound must not use up the tenant's minute.
            tokens=min(usage.input_tokens + usage.output_tokens, exchange.hold.tokens)
            if usage
            else None,
            events=events,
            spend=exchange.hold.spend,
            not_in=[exchange.hold.not_in(attempt.candidate) for attempt in exchange.attempts]
            if exchange.hold.named
            else [],
        )
        settled = await self._surely(record)
        counting.teach(exchange)
        return settlement.receipt_of(exchange, exchange.last, charges[-1], settled)

    async def void(self, exchange: Exchange) -> None:
        """Release a hold of which nothing was dispatched, or which may not even exist."""
        record = SettleRecord(
            tenant=exchange.principal.tenant_id,
            key=exchange.principal.key_id,
            request_id=exchange.request_id,
            now_ms=self._clock.now_ms(),
        )
        await self._surely(record)

    async def _surely(self, record: SettleRecord) -> Settled | None:
        """Book it; None where Redis has not taken it yet. Who is cancelled meanwhile leaves a task
        that books it again: same id."""
        try:
            return await self._book(record)
        except asyncio.CancelledError:
            again = asyncio.create_task(self._book(record))
            self._running.add(again)
            again.add_done_callback(self._running.discard)
            raise

    async def _book(self, record: SettleRecord) -> Settled | None:
        try:
            return await self._book_or_spool(record)
        except (OSError, SpoolFull):
            # Nobody can book it now: the hold's expiry will, from the last checkpoint.
            logger.exception("settle of %s could not be spooled", record.request_id)
            return None

    async def _book_or_spool(self, record: SettleRecord) -> Settled | None:
        try:
            settled = await self._send(record)
            if settled is not None:
                return settled
        except RecordRefused:
            await self._spool.set_aside(record)
            return None
        logger.warning("settle of %s goes to the spool", record.request_id)
        await self._spool.append(record)
        return None

    async def _send(self, record: SettleRecord) -> Settled | None:
        """What came of it once Redis has taken it, else None; a cold shard is tried once more
        under a fresh epoch. RecordRefused where no later try would be taken either."""
        for is_second in (False, True):
            epoch = self._snapshots.current.epochs.get(shard_of(record.tenant))
            try:
                if epoch is not None:
                    settled = await self._send_once(record, epoch)
                    if settled is not None:
                        return settled
            except RedisAway:
                return None
            except ReplyError as reply:
                logger.exception("Redis refused the settle of %s", record.request_id)
                if str(reply).startswith(SCRIPT_FAILED):
                    raise RecordRefused(record.request_id) from reply
                return None
            if not is_second:
                await self._snapshots.reload()
        return None

    async def _send_once(self, record: SettleRecord, epoch: str) -> Settled | None:
        try:
            if not record.events:
                voiding = holds.void_call(
                    tenant=record.tenant,
                    request_id=record.request_id,
                    now_ms=record.now_ms,
                    epoch=epoch,
                )
                holds.read_void(await self._pipe.run(voiding, repeatable=True))
                return NOTHING
            call = holds.settle_call(
                tenant=record.tenant,
                request_id=record.request_id,
                now_ms=record.now_ms,
                attempts=_attempts(record),
                epoch=epoch,
                spend=record.spend,
                tokens=record.tokens,
            )
            settled = holds.read_settle(await self._pipe.run(call, repeatable=True))
        except Cold:
            return None
        except HoldNotOpen:
            # A void of a hold that never was or is over: there is nothing left to release.
            return NOTHING
        if settled.late or settled.overage_nano:
            logger.warning(
                "settle of %s: late=%s overage=%d nano-dollars",
                record.request_id,
                settled.late,
                settled.overage_nano,
            )
        return settled

    async def _is_taken(self, record: SettleRecord) -> bool:
        return await self._send(record) is not None

    async def replay(self) -> int:
        """Replay the spool once, if Redis is there."""
        if not self._pipe.connected:
            return 0
        return await self._spool.replay(self._is_taken)

    async def _replay_for_ever(self) -> None:
        while True:
            try:
                taken = await self.replay()
                if taken:
                    logger.info("%d spooled settles were taken by Redis", taken)
            except OSError:
                logger.exception("the spool could not be replayed")
            await asyncio.sleep(REPLAY_EVERY_S)


def _attempts(record: SettleRecord) -> list[SettledAttempt]:
    not_in = record.not_in or [()] * len(record.events)
    return [
        SettledAttempt(event, charge_nano, positions)
        for (event, charge_nano), positions in zip(record.events, not_in, strict=True)
    ]
