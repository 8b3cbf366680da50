"""Names of everything that billing keeps in Redis, and the windows they belong to. Pure.

Every key carries the hash tag of its tenant's shard, so that one script may touch them together.
Spend windows are derived from the request id (a UUIDv7), never from a clock: Postgres finds the
same window from the same id, whenever it gets to see the event. A window's name is the instant at
which it began, so that a tenant that changes its time zone begins other registers.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

from billing.kinds import Window

SHARDS: Final = 64
GROUP_LEDGER: Final = "ledger"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What a rebuild writes anew: all but streams, holds and leases.
REBUILT: Final = frozenset({b"tenant", b"keys", b"spend", b"sessions"})

DAY: Final = Window.DAY.value
WEEK: Final = Window.WEEK.value
MONTH: Final = Window.MONTH.value
LIFETIME: Final = Window.LIFETIME.value
# Of one session: as long as calls of it go on coming.
SESSION: Final = Window.SESSION.value

# Refused requests on their way from data planes to a table, as JSON.
REFUSALS_STREAM: Final = "refusals"
# Raised whenever a row has changed that data planes work from (`billing.snapshot_rows`).
SNAPSHOT_VERSION_KEY: Final = "snapshot:version"
MS_PER_MINUTE: Final = 60_000
MS_PER_DAY: Final = 86_400_000
# A window's register outlives the window, for requests that settle late.
WINDOW_KEPT_MS: Final = 3 * MS_PER_DAY
MINUTE_KEPT_MS: Final = 15 * MS_PER_MINUTE
# A settle may begin the register of a cap that Redis has lost: longer than any window it can be of.
LOST_CAP_KEPT_MS: Final = 35 * MS_PER_DAY
# What is set to go has this much at least: none at all would be an error or a deletion.
LASTS_MS_MIN: Final = 1_000
# What is refused for open requests may come again then.
BUSY_RETRY_MS: Final = 1_000
# A session is over when nobody has called in it for this long.
SESSION_KEPT_MS: Final = MS_PER_DAY
SESSION_NAME_LENGTH: Final = 32
# No zone has changed its offset at another moment than a full quarter of an hour since 1972.
MS_PER_SLICE: Final = 15 * MS_PER_MINUTE


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


def scope_part(scope: str) -> str:
    """A scope's id as part of a key: names of models and suppliers may hold anything."""
    return quote(scope, safe="/")


def scope_of_part(part: str) -> str:
    return unquote(part)


def spend_key(tag: str, tenant: int, *, kind: str, scope: str, bucket: str) -> str:
    """`scope` as `scope_part` writes it."""
    return f"spend:{tag}:{tenant}:{kind}:{scope}:{bucket}"


def session_of(tenant: int, session_id: str) -> str:
    """A session's name in registers and events: its id under its tenant, which nobody can read."""
    said = f"{tenant}:{session_id}".encode(errors="surrogatepass")
    return hashlib.sha256(said).hexdigest()[:SESSION_NAME_LENGTH]


def sessions_key(tag: str, tenant: int) -> str:
    """The sessions of a tenant by when each is over."""
    return f"sessions:{tag}:{tenant}"


def minute_key(tag: str, tenant: int, *, kind: str, scope: str, unit: str, minute: int) -> str:
    """`unit` is rpm or tpm."""
    return f"{unit}:{tag}:{tenant}:{kind}:{scope}:{minute}"


def open_key(tag: str, tenant: int, *, kind: str, scope: str) -> str:
    """Open requests of a scope by the end of their lease."""
    return f"open:{tag}:{tenant}:{kind}:{scope}"


class ShardKeys(NamedTuple):
    """What every request of a shard needs, by name."""

    tag: str
    epoch: str
    clock: str
    leases: str
    stream: str


class TenantKeys(NamedTuple):
    """What every request of a tenant needs, by name."""

    shard: ShardKeys
    tenant: str
    key_status: str
    sessions: str


@lru_cache(maxsize=SHARDS)
def keys_of_shard(shard: int) -> ShardKeys:
    tag = tag_of_shard(shard)
    return ShardKeys(tag, epoch_key(tag), clock_key(tag), leases_key(tag), stream_key(tag))


@lru_cache(maxsize=4096)
def keys_of_tenant(tenant: int) -> TenantKeys:
    """Written once for as many tenants as are busy: each request asks twice."""
    shard = keys_of_shard(shard_of(tenant))
    return TenantKeys(
        shard,
        tenant_key(shard.tag, tenant),
        key_status_key(shard.tag, tenant),
        sessions_key(shard.tag, tenant),
    )


def moment_ms(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


def at_moment(at_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=at_ms)


def request_ms(request_id: str) -> int:
    """The time inside a UUIDv7."""
    return int(request_id[0:8] + request_id[9:13], 16)


def request_moment(request_id: str) -> datetime:
    return at_moment(request_ms(request_id))


@dataclass(frozen=True, slots=True)
class Span:
    """One window: from `begins_ms` to before `ends_ms`; both 0 where it has no end. Its register
    is called after `bucket` and may go at `goes_at_ms` (0 = never)."""

    bucket: str
    begins_ms: int
    ends_ms: int
    goes_at_ms: int


# Windows that no calendar ends.
ENDLESS: Final = {window: Span(window, 0, 0, 0) for window in (LIFETIME, SESSION)}


def span_of(window: str, at_ms: int, zone: str = "UTC") -> Span:
    """The calendar window that this moment is in, by the clocks and calendars of `zone`."""
    return _span_in(window, at_ms // MS_PER_SLICE, zone)


@lru_cache(maxsize=1024)
def _span_in(window: str, time_slice: int, zone: str) -> Span:
    if window in ENDLESS:
        return ENDLESS[window]
    where = ZoneInfo(zone)
    today = datetime.fromtimestamp(time_slice * MS_PER_SLICE // 1000, tz=where).date()
    first, after = _dates_of(window, today)
    begins_ms, ends_ms = _midnight_ms(first, where), _midnight_ms(after, where)
    began = datetime.fromtimestamp(begins_ms // 1000, tz=UTC)
    bucket = f"{window[0]}{began:%Y%m%d%H%M}"
    return Span(bucket, begins_ms, ends_ms, ends_ms + WINDOW_KEPT_MS)


def _dates_of(window: str, today: date) -> tuple[date, date]:
    """The first day of the window and the first one after it; weeks begin on Monday."""
    if window == DAY:
        return today, today + timedelta(days=1)
    if window == WEEK:
        monday = today - timedelta(days=today.weekday())
        return monday, monday + timedelta(days=7)
    if window == MONTH:
        first = today.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1)
    raise ValueError(f"no such window: {window}")


def _midnight_ms(day: date, where: ZoneInfo) -> int:
    """When this day begins there. Where clocks skip midnight it is the moment of the skip."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=where)
    return int(midnight.timestamp()) * 1000


def window_of_bucket(bucket: str) -> str:
    if bucket in (LIFETIME, SESSION):
        return bucket
    return {"d": DAY, "w": WEEK, "m": MONTH}[bucket[0]]


def ids_between(begins_ms: int, ends_ms: int) -> tuple[str, str]:
    """The least request id of the window, and the least one after it."""
    return least_id(begins_ms), least_id(ends_ms)


def least_id(at_ms: int) -> str:
    """No request that was admitted in this millisecond or later has a smaller id, and all before
    have."""
    digits = f"{at_ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"
