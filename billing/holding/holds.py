"""Hold, settle, checkpoint, void: the calls of one request's money, and how to read the replies.

No I/O and no Django: the data plane sends these calls on its own connection. Every call is atomic
over all scopes and idempotent by request id; a shard that does not know its epoch raises Cold.
What the scripts promise is written in billing/redis/one-request.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from billing import registers
from billing.errors import Behind, BillingError, Cold, HoldNotOpen
from billing.holding import scopes
from billing.holding.scopes import RateScope, SpendScope
from billing.money import REGISTER_NANO_MAX
from billing.redis import scripts as lua_scripts
from billing.redis.declared import OfHold
from billing.redis.protocol import Reply, text
from billing.redis.scripts import Call, Script
from billing.registers import ShardKeys, keys_of_tenant, shard_tag

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
    "is_cold",
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


def scripts() -> tuple[Script[Any], ...]:
    """Every connection loads these when it connects."""
    return lua_scripts.ALL


def _of_hold(shard: ShardKeys, request_id: str, *, now_ms: int, epoch: str) -> OfHold:
    return {
        "epoch_key": shard.epoch,
        "clock_key": shard.clock,
        "hold_key": registers.hold_key(shard.tag, request_id),
        "leases_key": shard.leases,
        "epoch": epoch,
        "now_ms": now_ms,
        "request": request_id,
    }


def place_call(request: HoldRequest, *, epoch: str) -> Call:
    tenant, request_id = request.tenant, request.request_id
    for nano in (request.hold_nano, request.ceiling_nano, request.overdraft_nano):
        if not 0 <= nano < REGISTER_NANO_MAX:
            raise ValueError(f"{nano} nano-dollars fit no register")
    keys, at_ms = keys_of_tenant(tenant), registers.request_ms(request_id)
    tag = keys.shard.tag
    return lua_scripts.PLACE.call(
        {
            **_of_hold(keys.shard, request_id, now_ms=request.now_ms, epoch=epoch),
            "tenant_key": keys.tenant,
            "status_key": keys.key_status,
            "stream_key": keys.shard.stream,
            "sessions_key": keys.sessions,
            "key_id": request.key,
            "hold_nano": request.hold_nano,
            "ceiling_nano": request.ceiling_nano,
            "overdraft_nano": request.overdraft_nano,
            "tokens": request.tokens,
            "lease_until_ms": min(request.now_ms + LEASE_MS, request.deadline_ms + GRACE_MS),
            "deadline_ms": request.deadline_ms,
            "undrained_max": UNDRAINED_MAX,
            "minute_goes_at_ms": scopes.minute_goes_at_ms(request.now_ms),
            "in_session": bool(request.spend) and request.spend[-1].window == registers.SESSION,
            "sessions_max": SESSIONS_MAX,
            "session_until_ms": request.now_ms + registers.SESSION_KEPT_MS,
            "spend": scopes.spend_rows(tag, tenant, request.spend, at_ms),
            "minute": scopes.minute_rows(tag, tenant, request.rates, now_ms=request.now_ms),
            "open": scopes.open_rows(tag, tenant, request.rates),
            "event": request.unknown_event,
        }
    )


def read_place(reply: Reply) -> Placed | Refused:
    """Raises Cold, and HoldNotOpen where this id was placed before and is over."""
    if not lua_scripts.PLACED.is_said(reply):
        return _refused(reply)
    answer = lua_scripts.PLACED.read(reply)
    return Placed(
        balance_nano=answer["balance_nano"],
        session_nano=answer["session_nano"],
        shadows=tuple(scopes.scope_of(key) for key in answer["shadows"]),
    )


def _refused(reply: Reply) -> Refused:
    if not lua_scripts.REFUSED.is_said(reply):
        raise _gone(reply)
    answer = lua_scripts.REFUSED.read(reply)
    kind, scope, window = scopes.scope_of(answer["key"])
    return Refused(
        code=answer["code"],
        scope_kind=kind,
        scope_id=scope,
        window=window,
        limit_nano=answer["limit"],
        left_nano=answer["left"],
        retry_after_ms=answer["retry_after_ms"],
    )


def count_call(
    *, tenant: int, key: int, rates: Iterable[RateScope], now_ms: int, epoch: str
) -> Call:
    """Count a request that costs nothing against its requests per minute; no hold is placed."""
    keys = keys_of_tenant(tenant)
    tag = keys.shard.tag
    requests_only = [replace(scope, tpm=None) for scope in rates]
    return lua_scripts.COUNT.call(
        {
            "epoch_key": keys.shard.epoch,
            "clock_key": keys.shard.clock,
            "tenant_key": keys.tenant,
            "status_key": keys.key_status,
            "epoch": epoch,
            "now_ms": now_ms,
            "key_id": key,
            "minute_goes_at_ms": scopes.minute_goes_at_ms(now_ms),
            "minute": scopes.minute_rows(tag, tenant, requests_only, now_ms=now_ms),
        }
    )


def read_count(reply: Reply) -> Refused | None:
    """None where it was counted; raises Cold."""
    return None if lua_scripts.COUNTED.is_said(reply) else _refused(reply)


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
    keys, at_ms = keys_of_tenant(tenant), registers.request_ms(request_id)
    tag = keys.shard.tag
    return lua_scripts.SETTLE.call(
        {
            **_of_hold(keys.shard, request_id, now_ms=now_ms, epoch=epoch),
            "tenant_key": keys.tenant,
            "stream_key": keys.shard.stream,
            "tokens": tokens,
            "kept_ms": GRACE_MS,
            "cap_kept_ms": registers.LOST_CAP_KEPT_MS,
            "attempts": [
                {
                    "charge_nano": attempt.charge_nano,
                    "not_in": _positions(attempt.not_in),
                    "event": attempt.event,
                }
                for attempt in attempts
            ],
            "caps": [
                {
                    "key": scopes.register_of(tag, tenant, cap, at_ms)[0],
                    "limit_nano": scopes.limit_of(cap, at_ms),
                }
                for cap in spend
            ],
        }
    )


def _positions(not_in: tuple[int, ...]) -> str:
    return " ".join(map(str, not_in)) if not_in else ""


def read_settle(reply: Reply) -> Settled:
    if not lua_scripts.SETTLED.is_said(reply):
        raise _gone(reply)
    return Settled(**lua_scripts.SETTLED.read(reply))


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
    shard = keys_of_tenant(tenant).shard
    return lua_scripts.CHECKPOINT.call(
        {
            **_of_hold(shard, request_id, now_ms=now_ms, epoch=epoch),
            "lease_until_ms": lease_until_ms,
            "charge_nano": so_far.charge_nano,
            "not_in": _positions(so_far.not_in),
            "finished": [{"event": event} for event in finished],
            "event": so_far.event,
        }
    )


def read_checkpoint(reply: Reply) -> None:
    """Raises HoldNotOpen where the lease was lost: the request may go on, its settle is late."""
    if not lua_scripts.RENEWED.is_said(reply):
        raise _gone(reply)


def void_call(*, tenant: int, request_id: str, now_ms: int, epoch: str) -> Call:
    """Release a hold of which nothing was dispatched."""
    keys = keys_of_tenant(tenant)
    return lua_scripts.VOID.call(
        {
            **_of_hold(keys.shard, request_id, now_ms=now_ms, epoch=epoch),
            "tenant_key": keys.tenant,
            "kept_ms": GRACE_MS,
        }
    )


def read_void(reply: Reply) -> None:
    if not lua_scripts.VOIDED.is_said(reply):
        raise _gone(reply)


def expire_call(*, shard: int, request_id: str, now_ms: int, epoch: str) -> Call:
    keys = registers.keys_of_shard(shard)
    return lua_scripts.EXPIRE.call(
        {
            **_of_hold(keys, request_id, now_ms=now_ms, epoch=epoch),
            "stream_key": keys.stream,
            "kept_ms": EXPIRED_KEPT_MS,
        }
    )


def is_cold(reply: Reply) -> bool:
    return lua_scripts.COLD.is_said(reply)


def read_expire(reply: Reply) -> bool:
    """Whether this call expired the hold; False where it was renewed or over in the meantime."""
    if is_cold(reply):
        raise Cold("the shard does not know its epoch")
    return lua_scripts.EXPIRED.is_said(reply)


def set_key_status(redis: SyncRedis, tenant: int, key_id: int, status: str) -> None:
    """`live` or `revoked`; the hold script reads it, so it holds at the next call."""
    if status not in (LIVE, REVOKED):
        raise ValueError(f"no such key status: {status}")
    redis.hset(registers.key_status_key(shard_tag(tenant), tenant), str(key_id), status)


def _gone(reply: Reply) -> BillingError:
    if is_cold(reply):
        return Cold("the shard does not know its epoch")
    if lua_scripts.BEHIND.is_said(reply):
        return Behind("the shard's usage is not being drained")
    if lua_scripts.GONE.is_said(reply):
        return HoldNotOpen(lua_scripts.GONE.read(reply)["state"])
    return HoldNotOpen(text(reply[0]))
