"""The audit of rows: every row is read once before its block is sealed, and once a month after.

Rows of the ledger only ever come to the end, so what a full block comes to stands for good. Full it
is when its ids are given out, and nobody has one whose row is not committed. When every promise
about its rows holds, that is written down as its seal: sums, and a digest of every row. From then
on an audit adds up the seals, reads all rows of the blocks that have none, and of a thirtieth of
those that have: a sealed block that is no longer what it was is a finding. So are small ranges of
any rows of money (`row_seals`), which are held against their seals in the same audit.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction

from billing.books import commit_order
from billing.integrity import findings, row_seals, row_versions, seal_merging, seal_statements
from billing.integrity.findings import AS_SEALED, SHOWN_MAX
from billing.integrity.invariant_statements import OF_EVENTS, OF_TRANSFERS
from billing.integrity.seal_statements import BLOCK, OF_BLOCKS, of_block
from billing.models import Finding

# An audit runs once a day: so many of them read every sealed block again.
AUDITS_PER_ROUND: Final = 30
# For batches under way; where it is not enough, the next audit seals.
WAIT_S: Final = 5.0

Violations = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """One kind of row in blocks of its ids, with the promises about them."""

    name: str
    table: str
    alias: str
    seals: str
    key: str
    sums: str
    summed: str
    promises: Mapping[str, str]

    def of_block(self, sql: str) -> str:
        return sql.format(which=of_block(self.alias))


EVENTS: Final = _Rows(
    name="block of events",
    table="billing_usageevent",
    alias="u",
    seals="billing_eventseal",
    key=seal_statements.EVENT_KEY,
    sums=seal_statements.EVENT_SUMS,
    summed=seal_statements.EVENTS,
    promises=OF_EVENTS,
)
TRANSFERS: Final = _Rows(
    name="block of transfers",
    table="billing_transfer",
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
        newest = _newest(rows)
        written_upto = commit_order.upto(rows.table, wait_s=WAIT_S)
        full = 0 if written_upto is None else (written_upto + 1) // BLOCK
        for block in range(newest // BLOCK + 1):
            turn = everything or block % AUDITS_PER_ROUND == now.toordinal() % AUDITS_PER_ROUND
            if block in sealed and turn:
                _check_again(rows, block, found, now)
            elif block not in sealed:
                _check_and_seal(rows, block, found, is_full=block < full)
    for name, sql in OF_BLOCKS.items():
        found[name] = _violations(sql)
    read_seals_again(now=now, everything=everything)
    row_seals.seal_new(now=now)
    seal_merging.merge_old(now=now)
    found[AS_SEALED] = findings.open_words()
    return found


def read_seals_again(*, now: datetime, everything: bool) -> None:
    """Hold rows against their small seals, and those that may change against what they said."""
    row_seals.read_again(now=now, everything=everything)
    row_versions.compare(now=now, everything=everything)


def resolve(finding_ids: Collection[int], *, reason: str, resolved_by: str, now: datetime) -> int:
    """Say what altered rows were: what they are now is what later audits hold them to."""
    with transaction.atomic():
        chosen = list(Finding.objects.filter(pk__in=finding_ids, resolved_at=None).order_by("pk"))
        for finding in chosen:
            digest: int | None
            blocks = next((rows for rows in (EVENTS, TRANSFERS) if rows.name == finding.what), None)
            if blocks is not None:
                # The next audit seals it anew, if it keeps its promises.
                _unseal(blocks, finding.first // BLOCK)
                digest = None
            elif finding.what in row_versions.KEPT:
                row_versions.keep_present(finding)
                digest = None
            elif finding.register:
                digest = None if finding.digest is None else int(finding.digest)
            else:
                digest = row_seals.present(finding.what, finding.first, finding.after).digest
            findings.close(finding, digest=digest, reason=reason, resolved_by=resolved_by, now=now)
    return len(chosen)


def _unseal(rows: _Rows, block: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {rows.seals} IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(f"DELETE FROM {rows.seals} WHERE block = %(block)s", _ids(block))


def _newest(rows: _Rows) -> int:
    ((newest,),) = _query(f"SELECT max(id) FROM {rows.table}")
    return int(newest or 0)


def _check_again(rows: _Rows, block: int, found: Violations, now: datetime) -> None:
    """A seal from before there were digests gets its own here, if all else about it is right."""
    is_sound = _check(rows, block, found)
    summed = rows.of_block(rows.summed)
    sql = seal_statements.compare(rows.seals, rows.key, rows.sums, summed)
    altered = _violations(sql, _ids(block))
    if altered:
        at = _ids(block)
        findings.record(rows.name, at["first"], at["after"], "; ".join(altered), now)
    if not is_sound or altered:
        return
    old = f"SELECT FROM {rows.seals} WHERE block = %(block)s AND digest IS NULL LIMIT 1"
    if _query(old, _ids(block)):
        _write(rows, seal_statements.digest(rows.seals, rows.key, summed), block)


def _check_and_seal(rows: _Rows, block: int, found: Violations, *, is_full: bool) -> None:
    """One that breaks a promise is not sealed, and is read again each time."""
    if not _check(rows, block, found) or not is_full:
        return
    summed = rows.of_block(rows.summed)
    _write(rows, seal_statements.seal(rows.seals, rows.key, rows.sums, summed), block)


def _write(rows: _Rows, sql: str, block: int) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        # An event that is resolved meanwhile moves the seal that it finds after.
        cursor.execute(f"LOCK TABLE {rows.seals} IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute(sql, _ids(block))


def _check(rows: _Rows, block: int, found: Violations) -> bool:
    """Whether every promise about the rows of the block holds."""
    is_sound = True
    for name, sql in rows.promises.items():
        wrong = _violations(f"{rows.of_block(sql)} LIMIT {SHOWN_MAX}", _ids(block))
        is_sound = is_sound and not wrong
        found[name] += wrong
    return is_sound


def _ids(block: int) -> dict[str, int]:
    return {"block": block, "first": block * BLOCK, "after": (block + 1) * BLOCK}


def _violations(sql: str, at: Mapping[str, int] | None = None) -> list[str]:
    return [" ".join(str(value) for value in row) for row in _query(sql, at)]


def _query(sql: str, at: Mapping[str, int] | None = None) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, at)
        return list(cursor.fetchall())
