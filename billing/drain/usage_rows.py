"""Writes usage events in bulk: one COPY in key order, which is all where no event is known yet.

What is known already is left as it is: then the rows go into a temporary table and what is new of
them on into the other. The caller learns which entries are new and how the others stand. Rows go in
COPY's binary form, because the assembly of text costs more than all else here. They are packed
before it is known in which transfer and when, which stands at each row's beginning.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Final

import msgspec
import psycopg.errors
from django.db import DataError, IntegrityError, connection, transaction

from billing import registers
from billing.drain.assessment import BIGINT_MAX, Assessed
from billing.drain.postings import Posted
from billing.holding.usage_stream import StreamEntry
from billing.models import UsageEvent
from billing.money import PICO_PER_NANO
from billing.usage import CanonicalUsage

TOKEN_COLUMNS: Final = CanonicalUsage.__struct_fields__
# In the order of a row: what is told last, then what has a fixed width, what may be missing, text.
COLUMNS: Final = (
    "drained_at",
    "transfer_id",
    "request_id",
    "attempt",
    "day",
    "body_hash",
    "tenant_id",
    "api_key_id",
    "offer_id",
    *TOKEN_COLUMNS,
    "rated_pico",
    "tenant_cost_pico",
    "supplier_cost_pico",
    "overage_pico",
    "hold_nano",
    "charged_nano",
    "occurred_at",
    "settled_at",
    "team_id",
    "price_version_id",
    "session_hash",
    "sku",
    "supplier",
    "model",
    "outcome",
    "usage_source",
    "state",
    "quarantine_reason",
    "stream_id",
    "detail",
)
_NAMES: Final = ", ".join(COLUMNS)
_TABLE: Final = UsageEvent._meta.db_table
_TEMPORARY: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS drained ON COMMIT DELETE ROWS AS"
    f" SELECT {_NAMES} FROM {_TABLE} WITH NO DATA"
)
_COPY: Final = f"COPY {{}} ({_NAMES}) FROM STDIN (FORMAT BINARY)"
_INSERT: Final = (
    f"INSERT INTO {_TABLE} ({_NAMES}) SELECT {_NAMES} FROM drained"
    " ON CONFLICT (request_id, attempt, day) DO NOTHING RETURNING stream_id"
)
_KNOWN: Final = (
    "SELECT drained.stream_id, known.stream_id, known.state, known.tenant_cost_pico,"
    " known.charged_nano, known.body_hash = drained.body_hash"
    f" FROM drained JOIN {_TABLE} known USING (request_id, attempt, day)"
    " WHERE drained.stream_id = ANY(%s)"
)
# https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-BINARY-FORMAT
_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TAIL: Final = struct.pack(">h", -1)
_BIGINTS: Final = COLUMNS.index("team_id") - COLUMNS.index("tenant_id")
_POSTED: Final = struct.Struct(">h iq iq")
_UNPOSTED: Final = struct.Struct(">h iq i")
_FIXED: Final = struct.Struct(">i16s ih ii i32s" + _BIGINTS * " iq")
# Each bigint stands behind its width.
_WIDTHS: Final = [8] * (2 * _BIGINTS)
_BIGINT: Final = struct.Struct(">iq")
_LENGTH: Final = struct.Struct(">i")
_NO_LENGTH: Final = -1
_NULL: Final = _LENGTH.pack(_NO_LENGTH)
_JSONB_VERSION: Final = b"\x01"
# PostgreSQL counts from the year 2000.
_YEAR_2000: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAY_0: Final = (_YEAR_2000 - registers.EPOCH).days
_MS_0: Final = _DAY_0 * registers.MS_PER_DAY
_NO_USAGE: Final = CanonicalUsage(input_tokens=0, output_tokens=0)
_NO_COUNTS: Final = msgspec.structs.astuple(_NO_USAGE)


# A row without its beginning, and whose transfer it belongs to; nobody's while in quarantine.
Packed = tuple[int | None, bytes]


@dataclass(frozen=True, slots=True)
class Known:
    """How an event stood before: from the same stream entry (read again) or from another."""

    same_entry: bool
    same_body: bool
    debited_pico: int


@dataclass(frozen=True, slots=True)
class Written:
    new: frozenset[str]
    known: dict[str, Known]


def write(
    entries: Sequence[StreamEntry],
    packed: Sequence[Packed],
    transfer_ids: Mapping[int, int],
    *,
    drained_at: datetime,
) -> Written:
    """Write what is new of these entries, whose rows `pack` has packed, in the caller's
    transaction; posted ones name their tenant's transfer."""
    rows = _rows(packed, transfer_ids, drained_at)
    try:
        with transaction.atomic():
            _copy(rows, _TABLE)
    except IntegrityError as problem:
        if not isinstance(problem.__cause__, psycopg.errors.UniqueViolation):
            raise
        return _write_new(entries, rows)
    return Written(new=frozenset(entry.id for entry in entries), known={})


def _write_new(entries: Sequence[StreamEntry], rows: bytes) -> Written:
    """Some are known, as after a drain that died before it could acknowledge them."""
    with connection.cursor() as cursor:
        cursor.execute(_TEMPORARY)
        _copy(rows, "drained")
        cursor.execute(_INSERT)
        new = frozenset(row[0] for row in cursor.fetchall())
        cursor.execute(_KNOWN, [[entry.id for entry in entries if entry.id not in new]])
        return Written(new=new, known={row[0]: _known(*row) for row in cursor.fetchall()})


def _copy(rows: bytes, table: str) -> None:
    # psycopg's own errors come out of a COPY otherwise.
    with connection.wrap_database_errors, connection.cursor() as cursor:
        with cursor.cursor.copy(_COPY.format(table)) as copy:
            copy.write(rows)


def _rows(packed: Sequence[Packed], transfer_ids: Mapping[int, int], drained_at: datetime) -> bytes:
    """All of them as one binary COPY."""
    drained_us = (drained_at - _YEAR_2000) // timedelta(microseconds=1)
    begun: dict[int | None, bytes] = {
        tenant: _POSTED.pack(len(COLUMNS), 8, drained_us, 8, transfer)
        for tenant, transfer in transfer_ids.items()
    }
    begun[None] = _UNPOSTED.pack(len(COLUMNS), 8, drained_us, _NO_LENGTH)
    told = chain.from_iterable((begun[tenant], row) for tenant, row in packed)
    return b"".join((_HEAD, *told, _TAIL))


def _known(
    entry: str, stream_id: str, state: str, tenant_pico: int, debit_nano: int, same_body: bool
) -> Known:
    quarantined = state == UsageEvent.State.QUARANTINED
    return Known(
        same_entry=entry == stream_id,
        same_body=same_body,
        debited_pico=debit_nano * PICO_PER_NANO if quarantined else tenant_pico,
    )


def pack(items: Iterable[Posted]) -> list[Packed]:
    """All rows in the order of the unique key; DataError where no column can hold one."""
    ordered = sorted(items, key=lambda item: (item[0].event.request_id, item[0].attempt))
    try:
        return [
            (None if assessed.quarantine_reason else entry.event.tenant, _row(entry, assessed))
            for entry, assessed, _ in ordered
        ]
    except struct.error as problem:
        raise DataError(f"not storable: {problem}") from problem


def _row(entry: StreamEntry, assessed: Assessed) -> bytes:
    event = entry.event
    quarantined = bool(assessed.quarantine_reason)
    settled_ms = entry.appended_ms if entry.expired else event.settled_ms
    numbers = _WIDTHS.copy()
    numbers[1::2] = (
        event.tenant,
        event.key,
        event.offer,
        *(_NO_COUNTS if event.usage is None else _token_counts(event.usage)),
        assessed.rated_pico,
        assessed.tenant_pico,
        assessed.supplier_pico,
        assessed.overage_pico,
        entry.hold_nano,
        entry.debit_nano,
        (event.occurred_ms - _MS_0) * 1000,
        (settled_ms - _MS_0) * 1000,
    )
    day = registers.request_ms(event.request_id) // registers.MS_PER_DAY - _DAY_0
    request = bytes.fromhex(event.request_id.replace("-", ""))
    fixed = _FIXED.pack(16, request, 2, entry.attempt, 4, day, 32, entry.body_hash, *numbers)
    parts = (
        fixed,
        _number(event.team),
        _number(assessed.price),
        _text(event.session[:64]),
        _text(event.sku[:200]),
        _text(event.supplier[:80]),
        _text(event.model[:200]),
        _text(event.outcome[:32]),
        _text(event.usage_source[:16]),
        _text(UsageEvent.State.QUARANTINED if quarantined else UsageEvent.State.POSTED),
        _text(assessed.quarantine_reason),
        _LENGTH.pack(len(entry.id)),
        entry.id.encode(),
        _LENGTH.pack(len(event.detail) + 1),
        _JSONB_VERSION,
        event.detail,
    )
    return b"".join(parts)


def _token_counts(usage: CanonicalUsage) -> tuple[int, ...]:
    """In the order of TOKEN_COLUMNS. A count that no column can hold is quarantined already."""
    counts: tuple[int, ...] = msgspec.structs.astuple(usage)
    return _NO_COUNTS if max(counts) > BIGINT_MAX or min(counts) < -BIGINT_MAX else counts


@lru_cache(maxsize=4096)
def _number(value: int | None) -> bytes:
    return _NULL if value is None else _BIGINT.pack(8, value)


@lru_cache(maxsize=4096)
def _text(value: str) -> bytes:
    """Most words are said in many rows."""
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded
