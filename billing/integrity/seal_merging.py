"""Merges old small seals of rows into larger ones, so that their number follows that of the rows.

Neighbours that together have few rows become one: it keeps the last one's place in the chain, which
says what all rows up to there come to, and so do all seals after it and every anchor.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from django.db import transaction

from billing.integrity import row_seals
from billing.integrity.row_kinds import KINDS
from billing.models import Finding, RowSeal

# Small is half of it: whatever is merged is then large, or the last of its neighbours.
SMALL_ROWS: Final = row_seals.ROWS_MAX // 2
# Of one kind in one run: a week's. More wait for the next.
SEALS_MAX: Final = 20_000


def merge_old(*, now: datetime) -> int:
    """Merge what every audit has stopped reading; returns how many seals were merged into others.
    Documents are sealed one by one and stay so."""
    return sum(_merge(what, now) for what, kind in KINDS.items() if not kind.one_by_one)


def _merge(what: str, now: datetime) -> int:
    with transaction.atomic():
        if not row_seals.is_alone(what):
            return 0
        # What a person resolved is known by its range.
        known = set(Finding.objects.filter(what=what).values_list("first", flat=True))
        old = RowSeal.objects.filter(
            what=what, sealed_at__lte=now - row_seals.NEW, rows__lte=SMALL_ROWS
        )
        seals = [seal for seal in old.order_by("-pk")[:SEALS_MAX] if seal.first not in known]
        return sum(_into_one(group) for group in _groups(seals[::-1]))


def _groups(seals: Sequence[RowSeal]) -> Iterator[list[RowSeal]]:
    """Neighbours, as many as one seal may have rows."""
    group: list[RowSeal] = []
    rows = 0
    for seal in seals:
        follows = bool(group) and group[-1].after == seal.first
        if not follows or rows + seal.rows > row_seals.ROWS_MAX:
            yield group
            group, rows = [], 0
        group.append(seal)
        rows += seal.rows
    yield group


def _into_one(group: Sequence[RowSeal]) -> int:
    if len(group) < 2:
        return 0
    first, *_, last = group
    RowSeal.objects.filter(pk__in=[seal.pk for seal in group[:-1]]).delete()
    last.first = first.first
    last.rows_before, last.digest_before = first.rows_before, first.digest_before
    last.rows = sum(seal.rows for seal in group)
    last.digest = sum(seal.digest for seal in group)
    last.save(update_fields=["first", "rows_before", "digest_before", "rows", "digest"])
    return len(group) - 1
