"""Writes usage events in bulk: COPY into a temporary table, then one sorted insert.

What is known already is left as it is; the caller learns which entries are new and how the others
stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from django.db import connection

from billing import registers
from billing.assessment import BIGINT_MAX, Assessed
from billing.models import UsageEvent
from billing.money import PICO_PER_NANO
from billing.usage import CanonicalUsage
from billing.usage_stream import StreamEntry

TOKEN_COLUMNS: Final = CanonicalUsage.__struct_fields__
COLUMNS: Final = (
    "request_id",
    "attempt",
    "day",
    "tenant_id",
    "team_id",
    "api_key_id",
    "session_hash",
    "sku",
    "price_version_id",
    "offer_id",
    "supplier",
    "model",
    "outcome",
    "usage_source",
    *TOKEN_COLUMNS,
    "rated_pico",
    "tenant_cost_pico",
    "supplier_cost_pico",
    "overage_pico",
    "hold_nano",
    "charged_nano",
    "occurred_at",
    "settled_at",
    "stream_id",
    "body_hash",
    "detail",
    "state",
    "quarantine_reason",
    "transfer_id",
    "drained_at",
)
_NAMES: Final = ", ".join(COLUMNS)
_TEMPORARY: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS drained ON COMMIT DELETE ROWS AS"
    f" SELECT {_NAMES} FROM billing_usageevent WITH NO DATA"
)
_INSERT: Final = (
    f"INSERT INTO billing_usageevent ({_NAMES}) SELECT {_NAMES} FROM drained"
    " ORDER BY request_id, attempt, day ON CONFLICT (request_id, attempt, day) DO NOTHING"
    " RETURNING stream_id"
)
_KNOWN: Final = (
    "SELECT drained.stream_id, known.stream_id, known.state, known.tenant_cost_pico,"
    " known.charged_nano, known.body_hash = drained.body_hash"
    " FROM drained JOIN billing_usageevent known USING (request_id, attempt, day)"
    " WHERE drained.stream_id = ANY(%s)"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_USAGE: Final = CanonicalUsage(input_tokens=0, output_tokens=0)
_json = msgspec.json.Encoder().encode


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
    rows: Sequence[tuple[StreamEntry, Assessed]],
    transfer_ids: dict[int, int],
    *,
    drained_at: datetime,
) -> Written:
    """Insert what is new, in the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(_TEMPORARY)
        with cursor.cursor.copy(f"COPY drained ({_NAMES}) FROM STDIN") as copy:
            for entry, assessed in rows:
                copy.write_row(_row(entry, assessed, transfer_ids, drained_at))
        cursor.execute(_INSERT)
        new = frozenset(row[0] for row in cursor.fetchall())
        others = [entry.id for entry, _ in rows if entry.id not in new]
        known: dict[str, Known] = {}
        if others:
            cursor.execute(_KNOWN, [others])
            known = {row[0]: _known(*row) for row in cursor.fetchall()}
    return Written(new=new, known=known)


def _known(
    entry: str, stream_id: str, state: str, tenant_pico: int, debit_nano: int, same_body: bool
) -> Known:
    quarantined = state == UsageEvent.State.QUARANTINED
    return Known(
        same_entry=entry == stream_id,
        same_body=same_body,
        debited_pico=debit_nano * PICO_PER_NANO if quarantined else tenant_pico,
    )


def _row(
    entry: StreamEntry,
    assessed: Assessed,
    transfer_ids: dict[int, int],
    drained_at: datetime,
) -> tuple[Any, ...]:
    event = entry.event
    usage = event.usage or _NO_USAGE
    quarantined = bool(assessed.quarantine_reason)
    settled_ms = entry.appended_ms if entry.expired else event.settled_ms
    return (
        entry.request_id,
        entry.attempt,
        _at(registers.request_ms(event.request_id)).date(),
        event.tenant,
        event.team,
        event.key,
        event.session[:64],
        event.sku[:200],
        assessed.price,
        event.offer,
        event.supplier[:80],
        event.model[:200],
        event.outcome[:32],
        event.usage_source[:16],
        *_token_counts(usage),
        assessed.rated_pico,
        assessed.tenant_pico,
        assessed.supplier_pico,
        assessed.overage_pico,
        entry.hold_nano,
        entry.debit_nano,
        _at(event.occurred_ms),
        _at(settled_ms),
        entry.id,
        entry.body_hash,
        _json(event.detail).decode(),
        "quarantined" if quarantined else "posted",
        assessed.quarantine_reason,
        None if quarantined else transfer_ids[event.tenant],
        drained_at,
    )


def _token_counts(usage: CanonicalUsage) -> tuple[int, ...]:
    """In the order of TOKEN_COLUMNS. A count that no column can hold is quarantined already."""
    counts: tuple[int, ...] = msgspec.structs.astuple(usage)
    if max(counts) > BIGINT_MAX or min(counts) < -BIGINT_MAX:
        return (0,) * len(counts)
    return counts


def _at(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
