"""Anchors: what all sealed rows came to at a moment, in a text that is kept outside the database.

Whoever rewrites rows and their seals together leaves nothing in the database that disagrees; but
what both come to up to an anchor's place is no longer what the anchor says. One line per kind of
row: the chain there (`row_seals.link`), the seal, the id that its rows end before, how many rows
there are up to it, the kind. The first line has a hash of the others, short enough to print.
"""

import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction
from django.db.models import Sum as Total

from billing import audit
from billing.errors import AnchorRefused
from billing.integrity import findings, row_seals, row_versions
from billing.integrity.row_kinds import KINDS
from billing.models import RowSeal

logger = logging.getLogger(__name__)

TEXT_LENGTH_MAX: Final = 20_000
BIGGEST_ID: Final = 2**63 - 1
_FIRST: Final = re.compile(r"tokenhouse anchor \S+ sha256 ([0-9a-f]{64})")
_LINE: Final = re.compile(r"([0-9a-f]{64}) (\d{1,19}) (\d{1,19}) (\d{1,19}) (\S[^\n]{0,39})")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest seal of a kind, and what its rows come to up to there."""

    chain: str
    seal: int
    after: int
    rows: int
    what: str

    def __str__(self) -> str:
        return f"{self.chain} {self.seal} {self.after} {self.rows} {self.what}"


def heads() -> list[Head]:
    newest = RowSeal.objects.order_by("what", "-pk").distinct("what")
    return [
        Head(seal.chain.hex(), seal.pk, seal.after, row_seals.total(seal).rows, seal.what)
        for seal in newest
    ]


def text(found: Iterable[Head], *, now: datetime) -> str:
    """The anchor as it is kept; `read` reads it."""
    lines = [str(head) for head in found]
    return "\n".join([f"tokenhouse anchor {now:%Y-%m-%dT%H:%M:%SZ} sha256 {_hash(lines)}", *lines])


def read(anchor: str) -> list[Head]:
    """What an anchor says, wherever white space was added around its lines."""
    lines = [line.strip() for line in anchor[:TEXT_LENGTH_MAX].splitlines() if line.strip()]
    first = _FIRST.fullmatch(lines[0]) if lines else None
    if first is None:
        raise AnchorRefused("this is no anchor: its first line begins with “tokenhouse anchor”")
    if first[1] != _hash(lines[1:]):
        raise AnchorRefused("this anchor is not as it was given: its lines have another hash")
    found = [_LINE.fullmatch(line) for line in lines[1:]]
    if not all(found):
        raise AnchorRefused("this anchor has a line that cannot be read")
    said = [Head(m[1], int(m[2]), int(m[3]), int(m[4]), m[5]) for m in found if m]
    if any(max(head.seal, head.after, head.rows) > BIGGEST_ID for head in said):
        raise AnchorRefused("this anchor has a number that no row can have")
    return said


def check(anchor: str, *, now: datetime) -> list[str]:
    """What is not as the anchor says, in words; all rows are read against their seals too, and what
    is altered of those is a finding."""
    wrong = [words for head in read(anchor) if (words := _compare(head))]
    row_seals.read_again(now=now, everything=True)
    row_versions.compare(now=now, everything=True)
    return wrong + findings.open_words()


def give(*, now: datetime, actor: str) -> str:
    """Seal what is new, and make an anchor; it stands in the log and in the audit log too."""
    row_seals.seal_new(now=now)
    anchor = text(heads(), now=now)
    logger.info("%s", anchor)
    with transaction.atomic():
        first, *lines = anchor.split("\n")
        audit.record(
            actor=actor, action="anchor.give", subject=first, after={"lines": lines}, now=now
        )
    return anchor


def _compare(head: Head) -> str:
    """The rows up to the anchor's place: of seals that end there, and of one merged beyond it."""
    seals = RowSeal.objects.filter(what=head.what, pk__lte=head.seal)
    if head.what in KINDS and not KINDS[head.what].one_by_one:
        seals = RowSeal.objects.filter(what=head.what, after__lte=head.after)
    sums = seals.aggregate(rows=Total("rows"), digest=Total("digest"))
    found = row_seals.Sum(int(sums["rows"] or 0), int(sums["digest"] or 0))
    merged = RowSeal.objects.filter(
        what=head.what, first__lt=head.after, after__gt=head.after, pk__gt=head.seal
    ).first()
    if merged is not None and head.what in KINDS and not KINDS[head.what].one_by_one:
        found = found.and_then(row_seals.present(head.what, merged.first, head.after))
    if row_seals.link(head.what, head.after, found).hex() == head.chain:
        return ""
    return (
        f"{head.what}: sealed rows are not those of the anchor ({head.rows} then, {found.rows} now)"
    )


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
