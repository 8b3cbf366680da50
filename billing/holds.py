"""Hold, settle, checkpoint, void: the calls of one request's money, and how to read the replies.

No I/O and no Django: the data plane sends these calls on its own connection. Every call is atomic
over all scopes and idempotent by request id; a shard that does not know its epoch raises Cold.
What the scripts promise is written in docs/money.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from billing import lua_scripts, registers
from billing.errors import Behind, BillingError, Cold, HoldNotOpen
from billing.lua_scripts import Argument, Call, Script
from billing.money import REGISTER_NANO_MAX
from billing.registers import shard_tag

__all__ = [
    "Call",
    "Cold",
    "HoldNotOpen",
    "HoldRequest",
    "Placed",
    "RateScope",
    "Refused",
    "Script",
    "SettledAttempt",
    "Settled",
    "SpendScope",
    "checkpoint_call",
    "expire_call",
    "place_call",
    "read_checkpoint",
    "read_place",
    "read_settle",
    "read_void",
    "scripts",
    "set_key_status",
    "settle_call",
    "shard_tag",
    "void_call",
]

LEASE_MS: Final = 20_000
# After its deadline a request's hold and outcome are remembered for this much longer.
GRACE_MS: Final = 60_000
# A late settle must find what its expiry has charged already.
EXPIRED_KEPT_MS: Final = 3 * registers.MS_PER_DAY

# Entries of a shard that nobody has drained; beyond it requests wait, or Redis would fill up.
UNDRAINED_MAX: Final = 250_000

LIVE: Final = "live"
REVOKED: Final = "revoked"


@dataclass(frozen=True, slots=True)
class SpendScope:
    """One spend cap of a request; `limit_nano` is rounded down."""

    kind: str
    id: str
    window: str
    limit_nano: int


@dataclass(frozen=True, slots=True)
class RateScope:
    kind: str
    id: str
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """A hold over all its scopes. `deadline_ms` is when the data plane ends the request;
    `unknown_event` is what expiry appends if nobody settles."""

    request_id: str
    tenant: int
    key: int
    hold_nano: int
    tokens: int
    now_ms: int
    deadline_ms: int
    spend: tuple[SpendScope, ...]
    rates: tuple[RateScope, ...]
    unknown_event: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    balance_nano: int


@dataclass(frozen=True, slots=True)
class Refused:
    """`code`: over_budget, rate_limited, concurrency, key_revoked or tenant_suspended.
    `window`: credit, day, month, lifetime, rpm, tpm, concurrency or empty."""

    code: str
    scope_kind: str
    scope_id: str
    window: str
    limit_nano: int
    left_nano: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class SettledAttempt:
    """An AttemptEvent as JSON, and what the tenant owes for it, rounded up to nano-dollars."""

    event: bytes
    charge_nano: int


@dataclass(frozen=True, slots=True)
class Settled:
    """`overage_nano`: what the attempts cost above what the tenant may be charged."""

    charged_nano: int
    overage_nano: int
    late: bool
    balance_nano: int


class SyncRedis(Protocol):
    def hset(self, name: str, key: str, value: str) -> object: ...


def scripts() -> tuple[Script, ...]:
    """Every connection loads these when it connects."""
    return lua_scripts.ALL


def place_call(request: HoldRequest, *, epoch: str) -> Call:
    tag = shard_tag(request.tenant)
    if not 0 <= request.hold_nano < REGISTER_NANO_MAX:
        raise ValueError(f"a hold of {request.hold_nano} nano-dollars fits no register")
    spend_keys, spend_args = _spend(tag, request)
    minute_keys, minute_args = _minutes(tag, request)
    open_keys, open_args = _open(tag, request)
    keys: list[bytes | str] = [
        registers.epoch_key(tag),
        registers.clock_key(tag),
        registers.tenant_key(tag, request.tenant),
        registers.key_status_key(tag, request.tenant),
        registers.hold_key(tag, request.request_id),
        registers.leases_key(tag),
        registers.stream_key(tag),
        *spend_keys,
        *minute_keys,
        *open_keys,
    ]
    args: list[Argument] = [
        epoch,
        request.now_ms,
        request.request_id,
        request.key,
        request.hold_nano,
        request.tokens,
        min(request.now_ms + LEASE_MS, request.deadline_ms + GRACE_MS),
        request.deadline_ms,
        request.unknown_event,
        len(spend_keys),
        len(minute_keys),
        len(open_keys),
        UNDRAINED_MAX,
        *spend_args,
        *minute_args,
        *open_args,
    ]
    return Call(lua_scripts.PLACE, keys, args)


def _spend(tag: str, request: HoldRequest) -> tuple[list[str], list[int]]:
    at_ms = registers.request_ms(request.request_id)
    keys: list[str] = []
    args: list[int] = []
    for scope in request.spend:
        bucket, goes_at_ms = registers.bucket_of(scope.window, at_ms)
        keys.append(
            registers.spend_key(tag, request.tenant, kind=scope.kind, scope=scope.id, bucket=bucket)
        )
        args += (_limit(scope), goes_at_ms)
    return keys, args


def _limit(scope: SpendScope) -> int:
    """A limit that no register can reach is none; the scripts know -1 for that."""
    if scope.limit_nano >= REGISTER_NANO_MAX:
        return -1
    return max(scope.limit_nano, 0)


def _minutes(tag: str, request: HoldRequest) -> tuple[list[str], list[int]]:
    minute = request.now_ms // registers.MS_PER_MINUTE
    goes_at_ms = minute * registers.MS_PER_MINUTE + registers.MINUTE_KEPT_MS
    keys: list[str] = []
    args: list[int] = []
    for scope in request.rates:
        for unit, limit, amount, gives_back in (
            ("rpm", scope.rpm, 1, 0),
            ("tpm", scope.tpm, request.tokens, 1),
        ):
            if limit is None:
                continue
            keys.append(
                registers.minute_key(
                    tag, request.tenant, kind=scope.kind, scope=scope.id, unit=unit, minute=minute
                )
            )
            args += (amount, limit, goes_at_ms, gives_back)
    return keys, args


def _open(tag: str, request: HoldRequest) -> tuple[list[str], list[int]]:
    limited = [scope for scope in request.rates if scope.concurrency is not None]
    keys = [
        registers.open_key(tag, request.tenant, kind=scope.kind, scope=scope.id)
        for scope in limited
    ]
    return keys, [scope.concurrency for scope in limited if scope.concurrency is not None]


def read_place(reply: Sequence[bytes | str]) -> Placed | Refused:
    """Raises Cold, and HoldNotOpen where this id was placed before and is over."""
    status, *rest = _texts(reply)
    if status == "placed":
        return Placed(balance_nano=int(rest[0]))
    if status == "refused":
        code, key, limit, left, retry_after_ms = rest
        kind, scope, window = _scope_of(key)
        return Refused(code, kind, scope, window, int(limit), int(left), int(retry_after_ms))
    raise _gone(status, rest)


def _scope_of(key: str) -> tuple[str, str, str]:
    """Which scope a register belongs to, read from its own name."""
    family, _tag, tenant, *rest = key.split(":")
    if family == "tenant":
        return "tenant", tenant, "credit"
    if family == "keys":
        return "key", "", ""
    if family == "spend":
        return rest[0], rest[1], registers.window_of_bucket(rest[2])
    return rest[0], rest[1], "concurrency" if family == "open" else family


def settle_call(
    *,
    tenant: int,
    request_id: str,
    now_ms: int,
    attempts: Sequence[SettledAttempt],
    epoch: str,
    spend: Iterable[SpendScope] = (),
    tokens: int | None = None,
) -> Call:
    """`spend` repeats the hold's scopes, for a hold that Redis has lost; `tokens` is what was
    really used, for the minute's token counter."""
    tag = shard_tag(tenant)
    at_ms = registers.request_ms(request_id)
    scopes = tuple(spend)
    keys: list[bytes | str] = [
        registers.epoch_key(tag),
        registers.clock_key(tag),
        registers.tenant_key(tag, tenant),
        registers.hold_key(tag, request_id),
        registers.leases_key(tag),
        registers.stream_key(tag),
    ]
    for scope in scopes:
        bucket, _ = registers.bucket_of(scope.window, at_ms)
        keys.append(
            registers.spend_key(tag, tenant, kind=scope.kind, scope=scope.id, bucket=bucket)
        )
    args: list[Argument] = [
        epoch,
        now_ms,
        request_id,
        -1 if tokens is None else tokens,
        GRACE_MS,
        len(attempts),
        len(scopes),
    ]
    for attempt in attempts:
        args += (attempt.event, attempt.charge_nano)
    args += [_limit(scope) for scope in scopes]
    return Call(lua_scripts.SETTLE, keys, args)


def read_settle(reply: Sequence[bytes | str]) -> Settled:
    status, *rest = _texts(reply)
    if status != "settled":
        raise _gone(status, rest)
    charged, overage, late, balance = rest
    return Settled(int(charged), int(overage), late == "1", int(balance))


def checkpoint_call(
    *,
    tenant: int,
    request_id: str,
    now_ms: int,
    lease_until_ms: int,
    event: bytes,
    charge_nano: int,
    epoch: str,
    finished: Sequence[bytes] = (),
) -> Call:
    """Renew the lease. `event` (outcome unknown) and `charge_nano` (rounded down) say what was
    delivered so far; `finished` are the events of attempts that are over and cost nothing."""
    tag = shard_tag(tenant)
    keys: list[bytes | str] = [
        registers.epoch_key(tag),
        registers.clock_key(tag),
        registers.hold_key(tag, request_id),
        registers.leases_key(tag),
    ]
    args: list[Argument] = [
        epoch,
        now_ms,
        request_id,
        lease_until_ms,
        event,
        charge_nano,
        len(finished),
        *finished,
    ]
    return Call(lua_scripts.CHECKPOINT, keys, args)


def read_checkpoint(reply: Sequence[bytes | str]) -> None:
    """Raises HoldNotOpen where the lease was lost: the request may go on, its settle is late."""
    status, *rest = _texts(reply)
    if status != "renewed":
        raise _gone(status, rest)


def void_call(*, tenant: int, request_id: str, now_ms: int, epoch: str) -> Call:
    """Release a hold of which nothing was dispatched."""
    tag = shard_tag(tenant)
    keys: list[bytes | str] = [
        registers.epoch_key(tag),
        registers.clock_key(tag),
        registers.tenant_key(tag, tenant),
        registers.hold_key(tag, request_id),
        registers.leases_key(tag),
    ]
    return Call(lua_scripts.VOID, keys, [epoch, now_ms, request_id, GRACE_MS])


def read_void(reply: Sequence[bytes | str]) -> None:
    status, *rest = _texts(reply)
    if status != "voided":
        raise _gone(status, rest)


def expire_call(*, shard: int, request_id: str, now_ms: int, epoch: str) -> Call:
    tag = registers.tag_of_shard(shard)
    keys: list[bytes | str] = [
        registers.epoch_key(tag),
        registers.clock_key(tag),
        registers.hold_key(tag, request_id),
        registers.leases_key(tag),
        registers.stream_key(tag),
    ]
    return Call(lua_scripts.EXPIRE, keys, [epoch, now_ms, request_id, EXPIRED_KEPT_MS])


def read_expire(reply: Sequence[bytes | str]) -> bool:
    """Whether this call expired the hold; False where it was renewed or over in the meantime."""
    status, *_ = _texts(reply)
    if status == "cold":
        raise Cold(f"shard is cold: {status}")
    return status == "expired"


def set_key_status(redis: SyncRedis, tenant: int, key_id: int, status: str) -> None:
    """`live` or `revoked`; the hold script reads it, so it holds at the next call."""
    if status not in (LIVE, REVOKED):
        raise ValueError(f"no such key status: {status}")
    redis.hset(registers.key_status_key(shard_tag(tenant), tenant), str(key_id), status)


def _gone(status: str, rest: Sequence[str]) -> BillingError:
    if status == "cold":
        return Cold("the shard does not know its epoch")
    if status == "behind":
        return Behind("the shard's usage is not being drained")
    return HoldNotOpen(rest[0] if rest else status)


def _texts(reply: Sequence[bytes | str]) -> list[str]:
    return [part.decode() if isinstance(part, bytes) else part for part in reply]
