"""Seals every row of money within half a minute of its commit, and reads seals again.

The continuous check seals what is new, in small ranges; an audit reads what is new since the one
before and a thirtieth of all others. A range that is no longer what it was, or a seal that does not
follow the one before, is a finding, which stays until a person resolves it (`findings`). The hashes
are no secret: whoever rewrites rows and all seals after them is found by an anchor (`anchors`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.db import connection, transaction

from billing import locks
from billing.books import commit_order
from billing.integrity import findings
from billing.integrity.row_kinds import KINDS, RowKind
from billing.models import RowSeal

TASK: Final = "billing.row_seals"
ROWS_MAX: Final = 10_000
# Of one kind in one run: a million rows. More wait for the next.
SEALS_MAX: Final = 100
WAIT_S: Final = 2.0
AUDITS_PER_ROUND: Final = 30
# Every audit reads what was sealed since the one before, and so many of the newest in any case.
NEW: Final = timedelta(hours=25)
NEWEST_ROWS: Final = 100_000
NEWEST_SEALS: Final = 2_000
AT_ONCE: Final = 500
LOWEST_ID: Final = -(2**63)


@dataclass(frozen=True, slots=True)
class Sum:
    """How many rows, and the sum of their hashes: sums of neighbours add up to that of both."""

    rows: int
    digest: int

    def and_then(self, other: "Sum") -> "Sum":
        return Sum(self.rows + other.rows, self.digest + other.digest)


NOTHING: Final = Sum(0, 0)


def seal_new(*, now: datetime) -> int:
    """Seal the rows that nobody has sealed yet, a kind at a time; returns how many seals."""
    return sum(_seal_kind(what, kind, now) for what, kind in KINDS.items())


def _seal_kind(what: str, kind: RowKind, now: datetime) -> int:
    with transaction.atomic():
        if not is_alone(what):
            return 0
        last = RowSeal.objects.filter(what=what).order_by("-pk").first()
        ranges = list(_single(what, kind) if kind.one_by_one else _ranges(kind, last))
        if not ranges:
            return 0
        seals = [
            RowSeal(what=what, first=first, after=after, sealed_at=now) for first, after in ranges
        ]
        return len(_sealed(kind, seals, total(last) if last else NOTHING))


def is_alone(what: str) -> bool:
    """Whether nobody else seals this kind or merges its seals, until the transaction ends."""
    return locks.is_only_run(f"{TASK} {what}")


def total(seal: RowSeal) -> Sum:
    """What all rows of a kind came to, up to and with this seal."""
    return Sum(seal.rows_before, int(seal.digest_before)).and_then(Sum(seal.rows, int(seal.digest)))


def _sealed(kind: RowKind, seals: Sequence[RowSeal], so_far: Sum) -> list[RowSeal]:
    sums = _sums(kind, [(n, seal.first, seal.after) for n, seal in enumerate(seals)])
    for n, seal in enumerate(seals):
        seal.rows, seal.digest = sums[n].rows, Decimal(sums[n].digest)
        seal.rows_before, seal.digest_before = so_far.rows, Decimal(so_far.digest)
        so_far = so_far.and_then(sums[n])
        seal.chain = link(seal.what, seal.after, so_far)
    return RowSeal.objects.bulk_create(seals)


def _ranges(kind: RowKind, last: RowSeal | None) -> Iterator[tuple[int, int]]:
    """Of ids that are written, behind the last seal."""
    upto = commit_order.upto(kind.table, wait_s=WAIT_S)
    first = last.after if last else 0
    for _ in range(SEALS_MAX):
        ((newest,),) = _query(
            f"SELECT max(id) FROM (SELECT id FROM {kind.table}"
            f" WHERE id >= %s AND id <= %s ORDER BY id LIMIT {ROWS_MAX}) AS fresh",
            [first, upto or 0],
        )
        if newest is None:
            return
        yield first, newest + 1
        first = newest + 1


def _single(what: str, kind: RowKind) -> Iterator[tuple[int, int]]:
    found = _query(
        f"SELECT r.id FROM {kind.table} r WHERE {kind.final} AND NOT EXISTS (SELECT FROM"
        f" billing_rowseal s WHERE s.what = %s AND s.first = r.id) ORDER BY r.id LIMIT {ROWS_MAX}",
        [what],
    )
    return ((pk, pk + 1) for (pk,) in found)


def read_again(*, now: datetime, everything: bool = False) -> None:
    """Hold this audit's share of all seals against their rows, and against the seal before."""
    for what, kind in KINDS.items():
        if not kind.one_by_one:
            _hold_below(what, now)
        seals = _turn(what, now, everything)
        for start in range(0, len(seals), AT_ONCE):
            _hold(what, kind, seals[start : start + AT_ONCE], now)


def _hold_below(what: str, now: datetime) -> None:
    """The first seal begins with the first id that is given out: there is nothing before."""
    found = present(what, LOWEST_ID, 0)
    if found != NOTHING and found.digest not in findings.resolved(what, [LOWEST_ID])[LOWEST_ID]:
        detail = f"{found.rows} rows were put in before the first id"
        findings.record(what, LOWEST_ID, 0, detail, now)


def _turn(what: str, now: datetime, everything: bool) -> Sequence[tuple[Any, ...]]:
    """Each with what all came to up to the seal before it."""
    return _query(
        f"""
        WITH newest AS (
            SELECT id, sum(rows) OVER (ORDER BY id DESC) AS so_far
            FROM (SELECT id, rows FROM billing_rowseal WHERE what = %(what)s
                  ORDER BY id DESC LIMIT {NEWEST_SEALS}) AS latest
        )
        SELECT s.id, s.first, s.after, s.rows, s.digest, s.chain, s.rows_before, s.digest_before,
            before.rows, before.digest
        FROM billing_rowseal s LEFT JOIN LATERAL (
            SELECT b.rows_before + b.rows AS rows, b.digest_before + b.digest AS digest
            FROM billing_rowseal b WHERE b.what = s.what AND b.id < s.id ORDER BY b.id DESC LIMIT 1
        ) before ON true
        WHERE s.what = %(what)s AND (%(all)s OR s.id %% {AUDITS_PER_ROUND} = %(turn)s
            OR s.sealed_at > %(new)s
            OR s.id IN (SELECT id FROM newest WHERE so_far <= {NEWEST_ROWS}))
        ORDER BY s.id
        """,
        {
            "what": what,
            "all": everything,
            "turn": now.toordinal() % AUDITS_PER_ROUND,
            "new": now - NEW,
        },
    )


def _hold(what: str, kind: RowKind, seals: Sequence[tuple[Any, ...]], now: datetime) -> None:
    sums = _sums(kind, [(pk, first, after) for pk, first, after, *_ in seals])
    resolved = findings.resolved(what, [first for _, first, *_ in seals])
    for pk, first, after, rows, digest, chain, *before in seals:
        rows_before, digest_before, rows_there, digest_there = (int(n or 0) for n in before)
        sealed, so_far = Sum(rows, int(digest)), Sum(rows_before, digest_before)
        if sums[pk].digest in resolved.get(first, ()):
            continue
        if so_far != Sum(rows_there, digest_there) or bytes(chain) != link(
            what, after, so_far.and_then(sealed)
        ):
            findings.record(what, first, after, "its seal does not follow the one before", now)
        elif sums[pk] != sealed:
            detail = f"altered since it was sealed; {rows} rows then, {sums[pk].rows} now"
            findings.record(what, first, after, detail, now)


def present(what: str, first: int, after: int) -> Sum:
    """What the final rows of a range come to now."""
    return _sums(KINDS[what], [(0, first, after)])[0]


def _sums(kind: RowKind, ranges: Sequence[tuple[int, int, int]]) -> dict[int, Sum]:
    """What the final rows of these ranges come to now, by the ranges' keys."""
    keys, firsts, afters = zip(*ranges, strict=True)
    found = {
        key: Sum(int(rows), int(digest))
        for key, rows, digest in _query(
            f"WITH s (id, first, after) AS (SELECT * FROM unnest(%s::bigint[], %s::bigint[],"
            f" %s::bigint[])) SELECT seal, count(*), sum(hash) FROM ({kind.digests}) parts"
            " GROUP BY seal",
            [list(keys), list(firsts), list(afters)],
        )
    }
    return {key: found.get(key, Sum(0, 0)) for key in keys}


def link(what: str, after: int, so_far: Sum) -> bytes:
    return hashlib.sha256(f"{what}:{after}:{so_far.rows}:{so_far.digest}".encode()).digest()


def _query(sql: str, at: Any) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, at)
        return list(cursor.fetchall())
