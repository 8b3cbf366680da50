"""Hold, settle, checkpoint, void: the calls of one request's money, and how to read the replies.

No I/O and no Django: the data plane sends these calls on its own connection. Every call is atomic
over all scopes and idempotent by request id; a shard that does not know its epoch raises Cold.
What the scripts promise is written in billing/redis/one-request.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from billing import registers
from billing.errors import Behind, BillingError, Cold, HoldNotOpen
from billing.holding import scopes
from billing.holding.scopes import RateScope, SpendScope
from billing.money import REGISTER_NANO_MAX
from billing.redis import scripts as lua_scripts
from billing.redis.scripts import Argument, Call, Script
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
    "count_call",
    "expire_call",
    "place_call",
    "read_checkpoint",
    "read_count",
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

# Sessions of one tenant that are not over; each of them is a register in Redis.
SESSIONS_MAX: Final = 10_000

# Entries of a shard that nobody has drained; beyond it requests wait, or Redis would fill up.
UNDRAINED_MAX: Final = 250_000

LIVE: Final = "live"
REVOKED: Final = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """A hold over all its scopes. `deadline_ms` is when the data plane ends the request;
    `unknown_event` is what expiry appends if nobody settles.

    With an overdraft the hold is what is expected, and the request may cost up to `ceiling_nano`:
    what it costs above its hold may pass each limit by at most `overdraft_nano`. A session is the
    last of `spend`, and lasts for a day after each of its calls.
    """

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
    ceiling_nano: int = 0
    overdraft_nano: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """`session_nano` is what the session had spent before; `shadows` name, as (kind, id, window),
    the caps in shadow that would have refused."""

    balance_nano: int
    session_nano: int | None = None
    shadows: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """`code`: over_budget, rate_limited, concurrency, too_many_sessions, key_revoked or
    tenant_suspended. `window`: credit, day, week, month, lifetime, session, rpm, tpm, concurrency,
    sessions or empty."""

    code: str
    scope_kind: str
    scope_id: str
    window: str
    limit_nano: int
    left_nano: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class SettledAttempt:
    """An AttemptEvent as JSON, and what the tenant owes for it, rounded up to nano-dollars.
    `not_in` are positions of `spend`, from 1: caps of models and suppliers it has not used."""

    event: bytes
    charge_nano: int
    not_in: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """`overage_nano`: what the attempts cost above what the tenant may be charged."""

    charged_nano: int
    overage_nano: int
    late: bool
    balance_nano: int
    session_nano: int | None = None


class SyncRedis(Protocol):
    def hset(self, name: str, key: str, value: str) -> object: ...


def scripts() -> tuple[Script, ...]:
    """Every connection loads these when it connects."""
    return lua_scripts.ALL


def place_call(request: HoldRequest, *, epoch: str) -> Call:
    tag = shard_tag(request.tenant)
    for nano in (request.hold_nano, request.ceiling_nano, request.overdraft_nano):
        if not 0 <= nano < REGISTER_NANO_MAX:
            raise ValueError(f"{nano} nano-dollars fit no register")
    at_ms = registers.request_ms(request.request_id)
    spend_keys, spend_args = scopes.spend_part(tag, request.tenant, request.spend, at_ms)
    minute_keys, minute_args = scopes.minute_part(
        tag, request.tenant, request.rates, tokens=request.tokens, now_ms=request.now_ms
    )
    open_keys, open_args = scopes.open_part(tag, request.tenant, request.rates)
    in_session = bool(request.spend) and request.spend[-1].window == registers.SESSION
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
        *((registers.sessions_key(tag, request.tenant),) if in_session else ()),
    ]
    args: list[Argument] = [
        epoch,
        request.now_ms,
        request.request_id,
        request.key,
        request.hold_nano,
        request.ceiling_nano,
        request.overdraft_nano,
        request.tokens,
        min(request.now_ms + LEASE_MS, request.deadline_ms + GRACE_MS),
        request.deadline_ms,
        request.unknown_event,
        len(spend_keys),
        len(minute_keys),
        len(open_keys),
        UNDRAINED_MAX,
        SESSIONS_MAX if in_session else 0,
        request.now_ms + registers.SESSION_KEPT_MS,
        *spend_args,
        *minute_args,
        *open_args,
    ]
    return Call(lua_scripts.PLACE, keys, args)


def read_place(reply: Sequence[bytes | str]) -> Placed | Refused:
    """Raises Cold, and HoldNotOpen where this id was placed before and is over."""
    status, *rest = _texts(reply)
    if status == "placed":
        balance, session, *shadows = rest
        return Placed(
            balance_nano=int(balance),
            session_nano=_nano(session),
            shadows=tuple(scopes.scope_of(key) for key in shadows),
        )
    return _refused(status, rest)


def _refused(status: str, rest: Sequence[str]) -> Refused:
    if status != "refused":
        raise _gone(status, rest)
    code, key, limit, left, retry_after_ms = rest
    kind, scope, window = scopes.scope_of(key)
    return Refused(code, kind, scope, window, int(limit), int(left), int(retry_after_ms))


def count_call(
    *, tenant: int, key: int, rates: Iterable[RateScope], now_ms: int, epoch: str
) -> Call:
    """Count a request that costs nothing against its requests per minute; no hold is placed."""
    tag = shard_tag(tenant)
    requests_only = [replace(scope, tpm=None) for scope in rates]
    minute_keys, minute_args = scopes.minute_part(
        tag, tenant, requests_only, tokens=0, now_ms=now_ms
    )
    keys: list[bytes | str] = [
        registers.epoch_key(tag),
        registers.clock_key(tag),
        registers.tenant_key(tag, tenant),
        registers.key_status_key(tag, tenant),
        *minute_keys,
    ]
    return Call(lua_scripts.COUNT, keys, [epoch, now_ms, key, len(minute_keys), *minute_args])


def read_count(reply: Sequence[bytes | str]) -> Refused | None:
    """None where it was counted; raises Cold."""
    status, *rest = _texts(reply)
    if status == "counted":
        return None
    return _refused(status, rest)


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
    caps = tuple(spend)
    keys: list[bytes | str] = [
        registers.epoch_key(tag),
        registers.clock_key(tag),
        registers.tenant_key(tag, tenant),
        registers.hold_key(tag, request_id),
        registers.leases_key(tag),
        registers.stream_key(tag),
    ]
    keys += [scopes.register_of(tag, tenant, cap, at_ms)[0] for cap in caps]
    args: list[Argument] = [
        epoch,
        now_ms,
        request_id,
        -1 if tokens is None else tokens,
        GRACE_MS,
        len(attempts),
        len(caps),
    ]
    for attempt in attempts:
        args += (attempt.event, attempt.charge_nano, _positions(attempt.not_in))
    args += [scopes.limit_of(cap, at_ms) for cap in caps]
    return Call(lua_scripts.SETTLE, keys, args)


def _positions(not_in: tuple[int, ...]) -> str:
    return " ".join(map(str, not_in)) if not_in else ""


def read_settle(reply: Sequence[bytes | str]) -> Settled:
    status, *rest = _texts(reply)
    if status != "settled":
        raise _gone(status, rest)
    charged, overage, late, balance, session = rest
    return Settled(int(charged), int(overage), late == "1", int(balance), _nano(session))


def _nano(text: str) -> int | None:
    return int(text) if text else None


def checkpoint_call(
    *,
    tenant: int,
    request_id: str,
    now_ms: int,
    lease_until_ms: int,
    so_far: SettledAttempt,
    epoch: str,
    finished: Sequence[bytes] = (),
) -> Call:
    """Renew the lease. `so_far` (outcome unknown, its charge rounded down) says what was delivered
    until now; `finished` are the events of attempts that are over and cost nothing."""
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
        so_far.event,
        so_far.charge_nano,
        _positions(so_far.not_in),
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
