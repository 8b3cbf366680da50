"""Promises about rows, kept of what was written since each was last read.

Every run reads a bounded number of new rows and goes on behind them, whether it found something or
not: what is wrong is remembered by its id, and only that is read again until it is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import connection

from billing import registers
from billing.integrity.invariant_statements import OF_EVENTS, OF_TRANSFERS
from billing.models import InvariantCheck

# Rows are dated before they are committed: a check begins again this long before where it was.
OVERLAP: Final = timedelta(minutes=15)
# New ones in one run; what is behind for longer is caught up in the next ones.
ROWS_MAX: Final = 200_000
# Where so many are wrong nothing more is read until some are right.
BROKEN_MAX: Final = 500
ENDLESS: Final = datetime.max.replace(tzinfo=UTC)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Promise:
    """`sql` finds violations among rows of the table; `written` is when one was."""

    sql: str
    table: str
    alias: str
    written: str

    def among(self, which: str) -> str:
        return self.sql.format(which=f"{self.alias}.{which}") + " LIMIT %(most)s"


PROMISES: Final = {
    **{n: Promise(s, "billing_transfer", "t", "created_at") for n, s in OF_TRANSFERS.items()},
    **{n: Promise(s, "billing_usageevent", "u", "drained_at") for n, s in OF_EVENTS.items()},
}


def check(name: str, *, now: datetime) -> list[str]:
    """What is wrong of what was wrong before and of what is new, in words; the next run goes on
    from here."""
    promise = PROMISES[name]
    known = InvariantCheck.objects.filter(name=name).first()
    wrong = _still(promise, known.broken_ids if known else [])
    read_until = known.verified_until if known else None
    if len(wrong) < BROKEN_MAX:
        reached = _reached(promise, read_until)
        fresh = _between(promise, read_until, reached)
        wrong |= fresh
        # More than can be remembered would be lost behind it.
        if len(fresh) < BROKEN_MAX and len(wrong) <= BROKEN_MAX:
            read_until = min(reached, now)
    words = [" ".join(map(str, row)) for row in wrong.values()]
    InvariantCheck.objects.update_or_create(
        name=name,
        defaults={
            "holds": not words,
            "checked_at": now,
            "verified_until": read_until,
            "broken_ids": list(wrong)[:BROKEN_MAX],
        },
    )
    return words


def note_all_read(now: datetime) -> None:
    """Everything up to now was read, and kept its promises: those that hold go on from there."""
    InvariantCheck.objects.filter(name__in=PROMISES, holds=True).update(verified_until=now)


def _still(promise: Promise, ids: list[int]) -> dict[int, Row]:
    return _violations(promise.among("id = ANY(%(ids)s)"), {"ids": ids}) if ids else {}


def _between(promise: Promise, since: datetime | None, until: datetime) -> dict[int, Row]:
    which = f"{promise.written} >= %(since)s AND {promise.alias}.{promise.written} < %(until)s"
    begins = since - OVERLAP if since else registers.EPOCH
    return _violations(promise.among(which), {"since": begins, "until": until})


def _reached(promise: Promise, since: datetime | None) -> datetime:
    """How far this run reads: to the end, or behind as many new rows as it may. Those of one moment
    are read together."""
    since = since or registers.EPOCH
    sql = (
        f"SELECT {promise.written} FROM {promise.table} WHERE {promise.written} >= %(since)s"
        f" ORDER BY {promise.written} OFFSET %(rows)s LIMIT 1"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, {"since": since, "rows": ROWS_MAX})
        row = cursor.fetchone()
    return max(row[0], since + timedelta(microseconds=1)) if row else ENDLESS


def _violations(sql: str, asked: Mapping[str, Any]) -> dict[int, Row]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {**asked, "most": BROKEN_MAX})
        return {int(row[0]): row for row in cursor.fetchall()}
