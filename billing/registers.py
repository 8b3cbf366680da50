"""Names of everything that billing keeps in Redis, and the windows they belong to. Pure.

Every key carries the hash tag of its tenant's shard, so that one script may touch them together.
Spend windows are derived from the request id (a UUIDv7), never from a clock: Postgres derives the
same day from the same id, whenever it gets to see the event.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

SHARDS: Final = 64
GROUP_LEDGER: Final = "ledger"
GROUP_MEASUREMENTS: Final = "measurements"
GROUPS: Final = (GROUP_LEDGER, GROUP_MEASUREMENTS)

# What a rebuild writes anew: all but streams, holds and leases.
REBUILT: Final = frozenset({b"tenant", b"keys", b"spend"})

DAY: Final = "day"
MONTH: Final = "month"
LIFETIME: Final = "lifetime"

MS_PER_MINUTE: Final = 60_000
MS_PER_DAY: Final = 86_400_000
# A window's register outlives the window, for requests that settle late.
WINDOW_KEPT_MS: Final = 3 * MS_PER_DAY
MINUTE_KEPT_MS: Final = 15 * MS_PER_MINUTE


def shard_of(tenant: int) -> int:
    return tenant % SHARDS


@lru_cache(maxsize=SHARDS)
def tag_of_shard(shard: int) -> str:
    return f"{{s{shard:02d}}}"


def shard_tag(tenant: int) -> str:
    """The hash tag of a tenant's shard, braces included."""
    return tag_of_shard(tenant % SHARDS)


def epoch_key(tag: str) -> str:
    return f"epoch:{tag}"


def clock_key(tag: str) -> str:
    """The latest time any script of this shard was given: time never goes back."""
    return f"clock:{tag}"


def stream_key(tag: str) -> str:
    return f"usage:{tag}"


def unreadable_key(tag: str) -> str:
    """Entries of the usage stream that no drain could read, kept for a person."""
    return f"unreadable:{tag}"


def leases_key(tag: str) -> str:
    """Open holds of the shard by the end of their lease."""
    return f"leases:{tag}"


def tenant_key(tag: str, tenant: int) -> str:
    return f"tenant:{tag}:{tenant}"


def key_status_key(tag: str, tenant: int) -> str:
    return f"keys:{tag}:{tenant}"


def hold_key(tag: str, request_id: str) -> str:
    return f"hold:{tag}:{request_id}"


def spend_key(tag: str, tenant: int, *, kind: str, scope: str, bucket: str) -> str:
    return f"spend:{tag}:{tenant}:{kind}:{scope}:{bucket}"


def minute_key(tag: str, tenant: int, *, kind: str, scope: str, unit: str, minute: int) -> str:
    """`unit` is rpm or tpm."""
    return f"{unit}:{tag}:{tenant}:{kind}:{scope}:{minute}"


def open_key(tag: str, tenant: int, *, kind: str, scope: str) -> str:
    """Open requests of a scope by the end of their lease."""
    return f"open:{tag}:{tenant}:{kind}:{scope}"


def request_ms(request_id: str) -> int:
    """The time inside a UUIDv7."""
    return int(request_id[0:8] + request_id[9:13], 16)


def bucket_of(window: str, at_ms: int) -> tuple[str, int]:
    """A window's name at this time, and when its register may go (0 = never)."""
    return _bucket_on(window, at_ms // MS_PER_DAY)


@lru_cache(maxsize=1024)
def _bucket_on(window: str, day: int) -> tuple[str, int]:
    date = datetime.fromtimestamp(day * 86_400, tz=UTC)
    if window == DAY:
        return f"{date:d%Y%m%d}", (day + 1) * MS_PER_DAY + WINDOW_KEPT_MS
    if window == MONTH:
        following = date.replace(
            year=date.year + date.month // 12, month=date.month % 12 + 1, day=1
        )
        return f"{date:m%Y%m}", int(following.timestamp()) * 1000 + WINDOW_KEPT_MS
    if window == LIFETIME:
        return LIFETIME, 0
    raise ValueError(f"no such window: {window}")


def window_of_bucket(bucket: str) -> str:
    return {"d": DAY, "m": MONTH}.get(bucket[0], LIFETIME)
