"""What an audit found altered, kept until somebody says what it was.

Each is told once as an error in the log, and breaks its invariant for as long as it is open.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django.db import transaction

from billing import audit
from billing.errors import FindingRefused
from billing.models import Finding

logger = logging.getLogger(__name__)

AS_SEALED: Final = "audited rows are as they were"
SHOWN_MAX: Final = 5


def record(what: str, first: int, after: int, detail: str, now: datetime) -> None:
    """Open a finding, or note that it is still there."""
    finding, is_new = Finding.objects.get_or_create(
        what=what,
        first=first,
        resolved_at=None,
        defaults={"after": after, "detail": detail[:400], "found_at": now, "seen_at": now},
    )
    if is_new:
        logger.error("%s: %s", finding, detail)
    else:
        Finding.objects.filter(pk=finding.pk).update(seen_at=now, detail=detail[:400])


def open_words() -> list[str]:
    """The open ones of rows, as the invariant says them."""
    found = Finding.objects.filter(resolved_at=None, register="").order_by("found_at", "pk")
    return [f"{finding}: {finding.detail}" for finding in found[:SHOWN_MAX]]


def resolved(what: str, firsts: Sequence[int]) -> dict[int, set[int]]:
    """What ranges may come to since people resolved findings of them."""
    known: dict[int, set[int]] = defaultdict(set)
    rows = Finding.objects.filter(what=what, first__in=firsts, digest__isnull=False)
    for first, digest in rows.exclude(resolved_at=None).values_list("first", "digest"):
        known[first].add(int(digest or 0))
    return known


def close(
    finding: Finding, *, digest: int | None, reason: str, resolved_by: str, now: datetime
) -> None:
    """Say what it was: what the rows come to now is what they have to from now on."""
    if not reason.strip():
        raise FindingRefused("somebody says what it was")
    with transaction.atomic():
        locked = Finding.objects.select_for_update().get(pk=finding.pk)
        if locked.resolved_at is not None:
            raise FindingRefused(f"{locked} was resolved before")
        locked.digest, locked.reason = digest, reason.strip()[:200]
        locked.resolved_by, locked.resolved_at = resolved_by, now
        locked.save()
        audit.record(
            actor=resolved_by,
            action="finding.resolve",
            subject=str(locked),
            before={"found": locked.detail},
            after={"digest": None if digest is None else str(digest)},
            reason=locked.reason,
            now=now,
        )
