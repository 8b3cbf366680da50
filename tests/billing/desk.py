"""A tenant at the money desk: places, settles and expires on a real Redis, on a given clock."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import redis

from billing import events, registers
from billing.events import AttemptDetail, AttemptEvent
from billing.holding import holds, scopes
from billing.holding.holds import (
    HoldRequest,
    Placed,
    RateScope,
    Refused,
    Settled,
    SettledAttempt,
    SpendScope,
)
from billing.redis.scripts import CREDIT, WRITTEN, Call
from billing.usage import CanonicalUsage

EPOCH = "epoch-1"
NOON_MS = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp() * 1000)
INPUT_PICO = 2_000_000
OUTPUT_PICO = 8_000_000


def request_id_at(now_ms: int) -> str:
    """A UUIDv7 of that millisecond."""
    random = uuid.uuid4().int & ((1 << 76) - 1)
    value = now_ms << 80 | 0x7 << 76 | (random & ~(0x3 << 62)) | 0x2 << 62
    return str(uuid.UUID(int=value))


def at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


encode = events.encode


def run(client: redis.Redis, call: Call) -> list[bytes]:
    client.script_load(call.script.source)
    return client.evalsha(call.script.sha1, len(call.keys), *call.keys, *call.args)


def credit_call(key: str, credit_nano: int, *, version: int = 1, status: str = "active") -> Call:
    """Of credit none of which ends."""
    return CREDIT.call(
        {
            "tenant_key": key,
            "credit_nano": credit_nano,
            "version": version,
            "status": status,
            "ends": "",
            "posted": "",
            "now_ms": NOON_MS,
            "late_ms": 0,
        }
    )


def warm(client: redis.Redis, *, tenant: int, credit_nano: int, epoch: str = EPOCH) -> None:
    tag = registers.shard_tag(tenant)
    client.set(registers.epoch_key(tag), epoch)
    client.hset(
        registers.tenant_key(tag, tenant),
        mapping={"credit": credit_nano, "version": 1, "status": "active"},
    )


@dataclass
class Desk:
    client: redis.Redis
    tenant: int = 71
    key: int = 5
    epoch: str = EPOCH
    now_ms: int = NOON_MS
    spend: tuple[SpendScope, ...] = ()
    rates: tuple[RateScope, ...] = ()
    price: int | None = None
    sku: str = "acme/swift-1"

    @property
    def tag(self) -> str:
        return registers.shard_tag(self.tenant)

    def event(
        self,
        request_id: str,
        *,
        attempt: int = 0,
        usage: tuple[int, int] | None = (100, 10),
        outcome: str = "ok",
        cost_pico: int | None = None,
        supplier_pico: int = 0,
        billable: bool = True,
        session: str = "",
        team: int | None = None,
        supplier: str = "acme",
    ) -> AttemptEvent:
        rated = 0 if usage is None else usage[0] * INPUT_PICO + usage[1] * OUTPUT_PICO
        return AttemptEvent(
            request_id=request_id,
            attempt=attempt,
            tenant=self.tenant,
            key=self.key,
            team=team,
            session=session,
            sku=self.sku,
            price=self.price,
            prices=() if self.price is None else (self.price,),
            offer=1,
            supplier=supplier,
            model="swift-1",
            outcome=outcome,
            usage=None
            if usage is None
            else CanonicalUsage(input_tokens=usage[0], output_tokens=usage[1]),
            usage_source="none" if usage is None else "provider",
            billable=billable,
            tenant_cost_pico=(rated if billable else 0) if cost_pico is None else cost_pico,
            supplier_cost_pico=supplier_pico,
            occurred_ms=self.now_ms,
            settled_ms=self.now_ms,
            detail=AttemptDetail(surface="openai_chat"),
        )

    def body(self, request_id: str, **changes: object) -> bytes:
        return events.encode(self.event(request_id, **changes))  # type: ignore[arg-type]

    def place(
        self,
        *,
        hold_nano: int = 1000,
        request_id: str = "",
        tokens: int = 100,
        deadline_ms: int = 600_000,
        ceiling_nano: int = 0,
        overdraft: int = 0,
    ) -> tuple[str, Placed | Refused]:
        request_id = request_id or request_id_at(self.now_ms)
        call = holds.place_call(
            HoldRequest(
                request_id=request_id,
                tenant=self.tenant,
                key=self.key,
                hold_nano=hold_nano,
                tokens=tokens,
                now_ms=self.now_ms,
                deadline_ms=self.now_ms + deadline_ms,
                spend=self.spend,
                rates=self.rates,
                unknown_event=self.body(request_id, usage=None, outcome="unknown"),
                ceiling_nano=ceiling_nano or hold_nano,
                overdraft_nano=overdraft,
            ),
            epoch=self.epoch,
        )
        return request_id, holds.read_place(run(self.client, call))

    def placed(self, *, hold_nano: int = 1000, tokens: int = 100) -> str:
        request_id, outcome = self.place(hold_nano=hold_nano, tokens=tokens)
        assert isinstance(outcome, Placed), outcome
        return request_id

    def settle(self, request_id: str, *charges_nano: int, tokens: int | None = None) -> Settled:
        attempts = [
            holds.SettledAttempt(self.body(request_id, attempt=i, cost_pico=charge * 1000), charge)
            for i, charge in enumerate(charges_nano)
        ]
        return self.settle_events(request_id, attempts, tokens=tokens)

    def settle_events(
        self,
        request_id: str,
        attempts: list[holds.SettledAttempt],
        *,
        tokens: int | None = None,
    ) -> Settled:
        call = holds.settle_call(
            tenant=self.tenant,
            request_id=request_id,
            now_ms=self.now_ms,
            attempts=attempts,
            epoch=self.epoch,
            spend=self.spend,
            tokens=tokens,
        )
        return holds.read_settle(run(self.client, call))

    def checkpoint(
        self,
        request_id: str,
        *,
        charge_nano: int,
        not_in: tuple[int, ...] = (),
        finished: tuple[bytes, ...] = (),
        **event: object,
    ) -> None:
        body = self.body(
            request_id, **{"outcome": "unknown", "cost_pico": charge_nano * 1000, **event}
        )
        call = holds.checkpoint_call(
            tenant=self.tenant,
            request_id=request_id,
            now_ms=self.now_ms,
            lease_until_ms=self.now_ms + holds.LEASE_MS,
            so_far=SettledAttempt(body, charge_nano, not_in),
            epoch=self.epoch,
            finished=finished,
        )
        holds.read_checkpoint(run(self.client, call))

    def void(self, request_id: str) -> None:
        call = holds.void_call(
            tenant=self.tenant, request_id=request_id, now_ms=self.now_ms, epoch=self.epoch
        )
        holds.read_void(run(self.client, call))

    def expire(self, request_id: str) -> bool:
        call = holds.expire_call(
            shard=registers.shard_of(self.tenant),
            request_id=request_id,
            now_ms=self.now_ms,
            epoch=self.epoch,
        )
        return holds.read_expire(run(self.client, call))

    def set_credit(self, credit_nano: int, *, version: int, status: str = "active") -> bool:
        key = registers.tenant_key(self.tag, self.tenant)
        reply = run(self.client, credit_call(key, credit_nano, version=version, status=status))
        return WRITTEN.is_said(reply)

    def tenant_register(self) -> dict[str, int]:
        row = self.client.hgetall(registers.tenant_key(self.tag, self.tenant))
        return {name.decode(): int(row.get(name, 0)) for name in (b"credit", b"spent", b"held")}

    def spend_register(self, scope: SpendScope, *, at_ms: int | None = None) -> tuple[int, int]:
        at_ms = self.now_ms if at_ms is None else at_ms
        key, _ = scopes.register_of(self.tag, self.tenant, scope, at_ms)
        spent, held = self.client.hmget(key, "spent", "held")
        return int(spent or 0), int(held or 0)

    def entries(self) -> list[dict[str, str]]:
        found = self.client.xrange(registers.stream_key(self.tag))
        return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in found]


def dump(client: redis.Redis) -> dict[bytes, tuple[object, bool]]:
    """Everything in Redis, and whether it lasts."""
    return {key: (_content(client, key), client.pttl(key) < 0) for key in client.scan_iter()}


def _content(client: redis.Redis, key: bytes) -> object:
    match client.type(key):
        case b"hash":
            return client.hgetall(key)
        case b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        case b"stream":
            return client.xrange(key)
        case _:
            return client.get(key)
