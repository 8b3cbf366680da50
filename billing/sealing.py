"""The audit of rows: every row is read once before its block is sealed, and once a month after.

Rows of the ledger only ever come to the end, so what a full block comes to stands for good. When
every promise about its rows holds, that is written down as its seal. From then on an audit adds up
the seals, reads all rows of the blocks that have none, and of a thirtieth of those that have: a
sealed block that is no longer what it was breaks a promise of its own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction

from billing import seal_statements
from billing.invariant_statements import OF_EVENTS, OF_TRANSFERS
from billing.seal_statements import BLOCK, OF_BLOCKS, of_block

# Rows are dated before they are committed: older ones are all there.
SETTLED: Final = timedelta(minutes=15)
# An audit runs once a day: so many of them read every sealed block again.
AUDITS_PER_ROUND: Final = 30
AS_SEALED: Final = "audited rows are as they were"

Violations = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """One kind of row in blocks of its ids, with the promises about them."""

    table: str
    dated: str
    alias: str
    seals: str
    key: str
    sums: str
    summed: str
    promises: Mapping[str, str]

    def of_block(self, sql: str) -> str:
        return sql.format(which=of_block(self.alias))


EVENTS: Final = _Rows(
    table="billing_usageevent",
    dated="drained_at",
    alias="u",
    seals="billing_eventseal",
    key=seal_statements.EVENT_KEY,
    sums=seal_statements.EVENT_SUMS,
    summed=seal_statements.EVENTS,
    promises=OF_EVENTS,
)
TRANSFERS: Final = _Rows(
    table="billing_transfer",
    dated="created_at",
    alias="t",
    seals="billing_entryseal",
    key=seal_statements.ENTRY_KEY,
    sums=seal_statements.ENTRY_SUMS,
    summed=seal_statements.ENTRIES,
    promises=OF_TRANSFERS,
)


def audit_rows(*, now: datetime, everything: bool = False) -> Violations:
    """Violations by promise; with `everything`, every sealed block is read again too."""
    found: Violations = defaultdict(list, {AS_SEALED: []})
    for rows in (EVENTS, TRANSFERS):
        for name in rows.promises:
            found[name] = []
        sealed = {int(row[0]) for row in _query(f"SELECT DISTINCT block FROM {rows.seals}")}
        for block in range(_newest(rows) + 1):
            turn = everything or block % AUDITS_PER_ROUND == now.toordinal() % AUDITS_PER_ROUND
            if turn or block not in sealed:
                _audit_block(rows, block, found, is_sealed=block in sealed, now=now)
    for name, sql in OF_BLOCKS.items():
        found[name] = _violations(sql)
    return found


def _audit_block(
    rows: _Rows, block: int, found: Violations, *, is_sealed: bool, now: datetime
) -> None:
    """One that breaks a promise is not sealed, and is read again each time."""
    at = {"block": block, "first": block * BLOCK, "after": (block + 1) * BLOCK}
    summed = rows.of_block(rows.summed)
    is_sound = True
    for name, sql in rows.promises.items():
        wrong = _violations(rows.of_block(sql), at)
        is_sound = is_sound and not wrong
        found[name] += wrong
    if is_sealed:
        sql = seal_statements.compare(rows.seals, rows.key, rows.sums, summed)
        found[AS_SEALED] += _violations(sql, at)
    elif is_sound and _is_full(rows, at, now):
        with transaction.atomic(), connection.cursor() as cursor:
            # An event that is resolved meanwhile moves the seal that it finds after.
            cursor.execute(f"LOCK TABLE {rows.seals} IN SHARE ROW EXCLUSIVE MODE")
            cursor.execute(seal_statements.seal(rows.seals, rows.key, rows.sums, summed), at)


def _newest(rows: _Rows) -> int:
    """The number of the last block; -1 if there is none."""
    ((newest,),) = _query(f"SELECT max(id) FROM {rows.table}")
    return -1 if newest is None else int(newest) // BLOCK


def _is_full(rows: _Rows, at: Mapping[str, Any], now: datetime) -> bool:
    """Whether no row can come to it any more: one behind it was written long ago."""
    behind = _query(
        f"SELECT {rows.dated} FROM {rows.table} WHERE id >= %(after)s ORDER BY id LIMIT 1", at
    )
    return bool(behind) and behind[0][0] < now - SETTLED


def _violations(sql: str, at: Mapping[str, Any] | None = None) -> list[str]:
    return [" ".join(str(value) for value in row) for row in _query(sql, at)]


def _query(sql: str, at: Mapping[str, Any] | None = None) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, at)
        return list(cursor.fetchall())
