"""How much of the minute's requests and tokens is left, in each vendor's headers.

Told as the counters stood when the request was admitted, its own share taken off: advice for
clients that pace themselves. The hold script alone decides.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from billing import registers
from billing.holding import scopes
from billing.holding.holds import RateScope
from gateway.dataplane.redis.pipe import RedisAway, RedisPipe
from providers.chat import Dialect

Head = list[tuple[bytes, bytes]]
UNITS: Final = ("requests", "tokens")


def ask(
    pipe: RedisPipe, *, tenant: int, rates: Sequence[RateScope], now_ms: int
) -> "asyncio.Future[Any] | None":
    """Begin to read the counters of this minute; it travels with the hold's own call."""
    tag = registers.shard_tag(tenant)
    rows = scopes.minute_rows(tag, tenant, rates, now_ms=now_ms)
    keys = [row["key"] for row in rows]
    if not keys:
        return None
    asked = pipe.command("MGET", *keys)
    asked.add_done_callback(_heard)
    return asked


def _heard(asked: "asyncio.Future[Any]") -> None:
    """Nobody may come to wait for it."""
    if not asked.cancelled():
        asked.exception()


async def told(
    asked: "asyncio.Future[Any] | None",
    *,
    rates: Sequence[RateScope],
    own: tuple[int, int],
    now_ms: int,
    dialect: Dialect,
) -> Head:
    """The headers; none where nothing is limited, or Redis does not say. `own` are the requests
    and tokens that were counted since."""
    if asked is None:
        return []
    try:
        used = [int(value or 0) for value in await asked]
    except RedisAway:
        return []
    left_ms = registers.MS_PER_MINUTE - now_ms % registers.MS_PER_MINUTE
    write = _anthropic if dialect == "anthropic" else _openai
    return [
        header
        for unit, limit, left in _tightest(rates, used, own)
        for header in write(unit, limit, left, now_ms + left_ms, left_ms)
    ]


def _tightest(
    rates: Sequence[RateScope], used: Iterable[int], own: tuple[int, int]
) -> Iterable[tuple[str, int, int]]:
    """Of every unit the limit that has least left, as (unit, limit, left)."""
    counts = iter(used)
    found: dict[str, tuple[int, int]] = {}
    for scope in rates:
        for unit, limit, counted in zip(UNITS, (scope.rpm, scope.tpm), own, strict=True):
            if limit is None:
                continue
            left = max(limit - next(counts) - counted, 0)
            if unit not in found or left < found[unit][1]:
                found[unit] = (limit, left)
    return [(unit, *found[unit]) for unit in UNITS if unit in found]


def _openai(unit: str, limit: int, left: int, at_ms: int, left_ms: int) -> Head:
    return [
        (f"x-ratelimit-limit-{unit}".encode(), str(limit).encode()),
        (f"x-ratelimit-remaining-{unit}".encode(), str(left).encode()),
        (f"x-ratelimit-reset-{unit}".encode(), f"{-(-left_ms // 1000)}s".encode()),
    ]


def _anthropic(unit: str, limit: int, left: int, at_ms: int, left_ms: int) -> Head:
    at = datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        (f"anthropic-ratelimit-{unit}-limit".encode(), str(limit).encode()),
        (f"anthropic-ratelimit-{unit}-remaining".encode(), str(left).encode()),
        (f"anthropic-ratelimit-{unit}-reset".encode(), at.encode()),
    ]
