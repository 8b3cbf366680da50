"""Reads the open holds from Redis, for people; changes nothing."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
import redis

from billing import registers
from billing.holding import scopes
from billing.money import PICO_PER_NANO
from billing.redis.connection import connection

SHOWN_PER_SHARD: Final = 50


@dataclass(frozen=True, slots=True)
class OpenHold:
    """One request under way: what is set aside, what it has cost so far, in which budgets. It may
    cost up to `ceiling_pico`; in strict mode that is the hold."""

    request_id: str
    tenant_id: int
    hold_pico: int
    ceiling_pico: int
    charged_pico: int
    budgets: tuple[str, ...]
    lease_ends: datetime
    deadline: datetime
    sku: str


class Sold(msgspec.Struct, frozen=True):
    """What is read of the event that a hold's expiry would append."""

    sku: str = ""


@dataclass(frozen=True, slots=True)
class OpenHolds:
    count: int
    shown: tuple[OpenHold, ...]


def open_holds(client: redis.Redis | None = None) -> OpenHolds:
    """All shards' holds, oldest lease first; at most SHOWN_PER_SHARD of each shard in full."""
    client = client or connection()
    tags = [registers.tag_of_shard(shard) for shard in range(registers.SHARDS)]
    with client.pipeline(transaction=False) as pipe:
        for tag in tags:
            pipe.zcard(registers.leases_key(tag))
            pipe.zrange(
                registers.leases_key(tag),
                0,
                SHOWN_PER_SHARD - 1,
                withscores=True,
                score_cast_func=int,
            )
        answers = pipe.execute()
    leases = [
        (tag, member.decode(), score)
        for tag, members in zip(tags, answers[1::2], strict=True)
        for member, score in members
    ]
    return OpenHolds(count=sum(answers[::2]), shown=tuple(_read(client, leases)))


def _read(client: redis.Redis, leases: list[tuple[str, str, int]]) -> list[OpenHold]:
    with client.pipeline(transaction=False) as pipe:
        for tag, request_id, _ in leases:
            pipe.hgetall(registers.hold_key(tag, request_id))
        rows = pipe.execute()
    found = [
        _hold(request_id, score, row)
        for (_, request_id, score), row in zip(leases, rows, strict=True)
        if row.get(b"state") == b"open"
    ]
    return sorted(found, key=lambda hold: hold.lease_ends)


def _hold(request_id: str, lease_ms: int, row: dict[bytes, bytes]) -> OpenHold:
    event = msgspec.json.decode(row.get(b"event") or b"{}", type=Sold)
    return OpenHold(
        request_id=request_id,
        tenant_id=int(row[b"tenant"].rsplit(b":", 1)[-1]),
        hold_pico=int(row[b"hold"]) * PICO_PER_NANO,
        ceiling_pico=int(row.get(b"ceiling") or row[b"hold"]) * PICO_PER_NANO,
        budgets=_budgets(row.get(b"spend", b"").decode()),
        charged_pico=int(row.get(b"charge") or 0) * PICO_PER_NANO,
        lease_ends=registers.at_moment(lease_ms),
        deadline=registers.at_moment(int(row[b"deadline"])),
        sku=event.sku,
    )


def _budgets(packed: str) -> tuple[str, ...]:
    """In words: which caps the hold counts in."""
    named = (scopes.scope_of(key) for key in packed.split()[::2])
    return tuple(
        "session" if kind == registers.SESSION else f"{kind} {scope_id} per {window}"
        for kind, scope_id, window in named
    )
