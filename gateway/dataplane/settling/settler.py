"""Books what the attempts of a request cost: one settle, never lost, never interrupted.

It runs in the request's task, whoever the caller has become; only a stop of the process can end
that task, and then a task that is referenced here books it again under the same id. What Redis
does not take goes to the spool, and what the disk does not take waits in memory; both are replayed
by id. What Redis would never take is handed to people, and is not forgotten until it is there.
"""

import asyncio
import logging
from typing import Any

from hiredis import ReplyError

from billing.errors import Cold, HoldNotOpen
from billing.holding import holds, settle_records
from billing.holding.holds import Settled
from billing.holding.settle_records import SettleRecord
from billing.registers import shard_of
from gateway.clocks.stopwatch import Clock
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.redis.pipe import NO_ANSWER, RedisAway, RedisPipe
from gateway.dataplane.settling import charges, counting
from gateway.dataplane.settling.spool import Spool, SpoolFull, Verdict
from gateway.dataplane.snapshots.snapshot import Snapshots
from providers.chat import Receipt

logger = logging.getLogger(__name__)

REPLAY_EVERY_S = 2.0
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
        # Bounded by the requests that are open: while it holds something nothing is admitted.
        self._unspooled: dict[str, SettleRecord] = {}
        self._replaying: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._replaying = asyncio.create_task(self._replay_for_ever())

    @property
    def waiting(self) -> int:
        """How many settles of this process Redis has not taken yet."""
        return len(self._unspooled) + self._spool.waiting

    @property
    def trouble(self) -> str:
        """Why nothing should be admitted that would have to be settled; empty where all is well."""
        if self._unspooled:
            return f"{len(self._unspooled)} settles fit neither into Redis nor onto the disk"
        return "" if self._spool.ready else "the spool has no room on its disk"

    async def close(self) -> None:
        """Wait for what is being booked; the spool takes what Redis does not."""
        if self._replaying:
            self._replaying.cancel()
        if self._running:
            await asyncio.wait(self._running)
        await self._tell_unspooled()
        for record in list(self._unspooled.values()):
            await self._keep(record)
        for request_id in self._unspooled:
            logger.error("the settle of %s is lost with this process", request_id)

    async def settle(self, exchange: Exchange) -> Receipt:
        """Book every attempt; returns what the caller is told."""
        now_ms = self._clock.now_ms()
        charged = [charges.charge_of(exchange, attempt) for attempt in exchange.attempts]
        counting.teach(exchange)
        events = [
            (charges.event_of(exchange, attempt, charge, now_ms=now_ms), charge.charge_nano)
            for attempt, charge in zip(exchange.attempts, charged, strict=True)
        ]
        usage = charged[-1].usage
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
        return charges.receipt_of(exchange, exchange.last, charged[-1], settled)

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
        sent = await self._send(record)
        if isinstance(sent, Settled):
            return sent
        if sent is not Verdict.TAKEN:
            await self._keep(record)
        return None

    async def _keep(self, record: SettleRecord) -> None:
        """On disk, or in memory until there is room on it."""
        logger.warning("settle of %s goes to the spool", record.request_id)
        try:
            await self._spool.append(record)
        except (OSError, SpoolFull):
            logger.exception("settle of %s is kept in memory", record.request_id)
            self._unspooled[record.request_id] = record
        else:
            self._unspooled.pop(record.request_id, None)

    async def _send(self, record: SettleRecord) -> Settled | Verdict:
        """What came of it once Redis has taken it, else what became of the record; a cold shard is
        tried once more under a fresh epoch."""
        if record.events and self._clock.now_ms() - record.now_ms > holds.EXPIRED_KEPT_MS:
            return await self._hand_over(record, settle_records.TOO_OLD)
        for is_second in (False, True):
            epoch = self._snapshots.current.epochs.get(shard_of(record.tenant))
            try:
                if epoch is not None:
                    settled = await self._send_once(record, epoch)
                    if settled is not None:
                        return settled
            except RedisAway as away:
                logger.info("settle of %s must wait: %s", record.request_id, away)
                return Verdict.NOBODY
            except (ReplyError, ValueError, TypeError) as refusal:
                logger.exception("Redis refused the settle of %s", record.request_id)
                return await self._hand_over(record, str(refusal))
            if not is_second:
                await self._snapshots.reload()
        return Verdict.LATER

    async def _send_once(self, record: SettleRecord, epoch: str) -> Settled | None:
        """None where the shard is cold."""
        call = settle_records.call_of(record, epoch=epoch)
        reply = await self._pipe.run(call, repeatable=True)
        try:
            if not record.events:
                holds.read_void(reply)
                return NOTHING
            settled = holds.read_settle(reply)
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

    async def _hand_over(self, record: SettleRecord, reason: str) -> Verdict:
        """To people, who see it in the console: no later try of ours would be taken either."""
        try:
            waiting = await self._pipe.command("XLEN", settle_records.REFUSED_STREAM)
            if waiting >= settle_records.REFUSED_MAX:
                return Verdict.LATER
            said = settle_records.refused(record, reason)
            await self._pipe.command("XADD", settle_records.REFUSED_STREAM, "*", *said)
        except NO_ANSWER:
            return Verdict.NOBODY
        logger.error("settle of %s is refused for good: %s", record.request_id, reason)
        return Verdict.TAKEN

    async def _replayed(self, record: SettleRecord) -> Verdict:
        sent = await self._send(record)
        return Verdict.TAKEN if isinstance(sent, Settled) else sent

    async def replay(self) -> int:
        """Tell Redis once, if it is there, what it has not taken yet."""
        if not self._spool.ready:
            self._spool.open()
        if not self._pipe.connected:
            return 0
        return await self._tell_unspooled() + await self._spool.replay(self._replayed)

    async def _tell_unspooled(self) -> int:
        told = 0
        for record in list(self._unspooled.values()):
            verdict = await self._replayed(record)
            if verdict is Verdict.NOBODY:
                break
            if verdict is Verdict.TAKEN:
                self._unspooled.pop(record.request_id, None)
                told += 1
        return told

    async def _replay_for_ever(self) -> None:
        while True:
            try:
                taken = await self.replay()
                if taken:
                    logger.info("%d spooled settles were taken by Redis", taken)
            except OSError:
                logger.exception("the spool could not be replayed")
            await asyncio.sleep(REPLAY_EVERY_S)
