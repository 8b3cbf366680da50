"""Rectangles of charges, and what is left of one when others are taken out. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple


class Span(NamedTuple):
    """Charges that occurred in [from, until) and were posted by a transfer in (after, upto]."""

    posted_after: int
    posted_upto: int
    occurred_from: datetime
    occurred_until: datetime

    @property
    def is_empty(self) -> bool:
        return self.occurred_from >= self.occurred_until or self.posted_after >= self.posted_upto


def left_of(whole: Span, taken: Iterable[Span]) -> list[Span]:
    """What the others leave of the whole: disjoint, and as few pieces as side by side allow."""
    pieces = [whole] if not whole.is_empty else []
    for other in taken:
        pieces = [part for piece in pieces for part in _without(piece, other)]
    return _joined(pieces)


def _without(piece: Span, other: Span) -> list[Span]:
    """Before and after the other in time; and within its time what was posted below and above."""
    first = max(piece.occurred_from, other.occurred_from)
    last = min(piece.occurred_until, other.occurred_until)
    low = max(piece.posted_after, other.posted_after)
    high = min(piece.posted_upto, other.posted_upto)
    if first >= last or low >= high:
        return [piece]
    parts = (
        piece._replace(occurred_until=first),
        piece._replace(occurred_from=last),
        Span(piece.posted_after, low, first, last),
        Span(high, piece.posted_upto, first, last),
    )
    return [part for part in parts if not part.is_empty]


def _joined(pieces: Iterable[Span]) -> list[Span]:
    """Neighbours in time that were posted alike are one: else each month would add a piece."""
    joined: list[Span] = []
    for piece in sorted(pieces):
        before = joined[-1] if joined else None
        if (
            before is not None
            and before[:2] == piece[:2]
            and before.occurred_until == piece.occurred_from
        ):
            joined[-1] = before._replace(occurred_until=piece.occurred_until)
        else:
            joined.append(piece)
    return joined
