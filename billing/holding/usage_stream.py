"""The usage streams in Redis, one per shard: read as the ledger's consumer group, and trimmed.

One consumer name serves every process: the shard's lock lets one of them read at a time, so what
a dead one had read and not acknowledged is simply read again. What it has acknowledged is trimmed,
and nothing else; nobody else reads the stream, so that nobody else can hold it up.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, cast

import msgspec
import redis

from billing import events, registers
from billing.events import SealedEvent

CONSUMER: Final = "drain"
BEGINNING: Final = "0"
NEVER_DELIVERED: Final = ">"
UNREADABLE_KEPT: Final = 10_000
ATTEMPT_MAX: Final = 1_000
# Year 2100: a later time is no time but a broken clock or a broken event.
TIME_MS_MAX: Final = 4_102_444_800_000
ID_MAX: Final = 2**63 - 1
# As the data plane writes them: PostgreSQL reads more spellings, and would tell two from one.
UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

RawEntry = tuple[bytes, Mapping[bytes, bytes]]


class StreamEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A usage event with what the scripts debited for it, and in which window registers."""

    id: str
    event: SealedEvent
    body_hash: bytes
    debit_nano: int
    hold_nano: int
    overage_nano: int
    keys: tuple[str, ...]
    late: bool
    expired: bool

    @property
    def attempt(self) -> int:
        """As stored: the expiry of attempt n is -(n + 1), so that a late settle has n to itself."""
        return -(self.event.attempt + 1) if self.expired else self.event.attempt

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.event.request_id}/{self.attempt}"

    @property
    def appended_ms(self) -> int:
        return int(self.id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class Unreadable:
    id: str
    reason: str
    fields: Mapping[bytes, bytes]


def ensure_groups(client: redis.Redis, shards: Iterable[int] = range(registers.SHARDS)) -> None:
    """Make the consumer group of these shards; those that exist stay where they are."""
    with client.pipeline(transaction=False) as pipe:
        for shard in shards:
            key = registers.stream_key(registers.tag_of_shard(shard))
            pipe.xgroup_create(key, registers.GROUP_LEDGER, id="0", mkstream=True)
        replies = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not str(reply).startswith("BUSYGROUP"):
            raise reply


def read(
    client: redis.Redis, shard: int, *, count: int, after: str
) -> list[StreamEntry | Unreadable]:
    """Up to `count` entries: what was delivered behind that entry and never acknowledged, or what
    was NEVER_DELIVERED."""
    key = registers.stream_key(registers.tag_of_shard(shard))
    reading = partial(client.xreadgroup, registers.GROUP_LEDGER, CONSUMER, {key: after}, count)
    try:
        reply = reading()
    except redis.ResponseError as problem:
        # A stream that was lost and begun anew has no groups: nothing of it was read.
        if not str(problem).startswith("NOGROUP"):
            raise
        ensure_groups(client, [shard])
        reply = reading()
    found = cast(Sequence[tuple[bytes, Sequence[RawEntry]]], reply or ())
    return [_parse(entry_id.decode(), fields) for _, raw in found for entry_id, fields in raw]


def _parse(entry_id: str, fields: Mapping[bytes, bytes]) -> StreamEntry | Unreadable:
    try:
        body = fields[b"e"]
        # PostgreSQL stores no NUL in text; nobody needs one in a usage event.
        event = events.decode_sealed(body.replace(b"\\u0000", b"\\ufffd"))
        _check(event)
        return StreamEntry(
            id=entry_id,
            event=event,
            body_hash=hashlib.sha256(events.said(body)).digest(),
            debit_nano=int(fields[b"c"]),
            hold_nano=int(fields[b"h"]),
            overage_nano=int(fields[b"o"]),
            keys=_keys(fields[b"k"]),
            late=fields[b"l"] == b"1",
            expired=fields.get(b"x") == b"1",
        )
    except (KeyError, ValueError, msgspec.MsgspecError) as problem:
        return Unreadable(entry_id, f"{type(problem).__name__}: {problem}"[:300], fields)


def _check(event: SealedEvent) -> None:
    if UUID7.fullmatch(event.request_id) is None:
        raise ValueError("the request id is no UUIDv7")
    if not 0 <= event.attempt <= ATTEMPT_MAX:
        raise ValueError(f"no such attempt: {event.attempt}")
    if not (
        0 <= event.key <= ID_MAX and 0 <= event.offer <= ID_MAX and 0 <= (event.team or 0) <= ID_MAX
    ):
        raise ValueError("an id out of all bounds")
    if not (0 <= event.occurred_ms < TIME_MS_MAX and 0 <= event.settled_ms < TIME_MS_MAX):
        raise ValueError("a time out of all bounds")


@lru_cache(maxsize=4096)
def _keys(said: bytes) -> tuple[str, ...]:
    """Most requests of a key name the same registers: one tuple serves them all."""
    return tuple(said.decode().split())


def set_aside(client: redis.Redis, shard: int, entries: Sequence[Unreadable]) -> None:
    """Keep what cannot be read for a person to see, out of the way of the rest."""
    tag = registers.tag_of_shard(shard)
    for entry in entries:
        fields: dict[Any, Any] = {**entry.fields, b"id": entry.id, b"reason": entry.reason}
        client.xadd(registers.unreadable_key(tag), fields, maxlen=UNREADABLE_KEPT)
    if entries:
        client.xack(
            registers.stream_key(tag), registers.GROUP_LEDGER, *(entry.id for entry in entries)
        )


def last_delivered(client: redis.Redis, shard: int) -> str:
    """Up to where the ledger's group has read."""
    return _groups(client, shard)[registers.GROUP_LEDGER].last_delivered


def has_pending(client: redis.Redis, shard: int) -> bool:
    """Whether the ledger has read something that it has not acknowledged."""
    return _groups(client, shard)[registers.GROUP_LEDGER].pending > 0


def oldest_unread_ms(client: redis.Redis, shard: int) -> int | None:
    """When the first entry beyond what the ledger has read was appended."""
    key = registers.stream_key(registers.tag_of_shard(shard))
    found = client.xrange(key, min=f"({last_delivered(client, shard)}", count=1)
    return _order(_text(cast(bytes, found[0][0])))[0] if found else None


def trim(client: redis.Redis, shard: int) -> int:
    """Remove what is acknowledged; returns how many entries went."""
    key = registers.stream_key(registers.tag_of_shard(shard))
    group = _groups(client, shard)[registers.GROUP_LEDGER]
    oldest = client.xpending(key, registers.GROUP_LEDGER)["min"] if group.pending else None
    if oldest is not None:
        keep_from = oldest.decode()
    else:
        # None too if the rest was acknowledged between the two calls.
        milliseconds, sequence = _order(group.last_delivered)
        keep_from = f"{milliseconds}-{sequence + 1}"
    return int(client.xtrim(key, minid=keep_from, approximate=False))


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


@dataclass(frozen=True, slots=True)
class Group:
    """Up to where one of a stream's readers has read, and how much it has not acknowledged."""

    last_delivered: str
    pending: int


def _groups(client: redis.Redis, shard: int) -> dict[str, Group]:
    key = registers.stream_key(registers.tag_of_shard(shard))
    groups = client.xinfo_groups(key)
    return {
        _text(group["name"]): Group(_text(group["last-delivered-id"]), int(group["pending"]))
        for group in groups
    }


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
