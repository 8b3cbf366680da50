"""What comparisons found wrong about registers, kept like what audits find (`findings`).

What says that a register disagrees is over when it agrees; that a cap was passed when a person has
said why, for nothing takes it back: the window only ends. One that a person has explained is found
again when the register has more.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from billing.integrity import findings
from billing.models import Finding

logger = logging.getLogger(__name__)

DIFFERS: Final = "register that differs"
CREDIT_PASSED: Final = "credit that was passed"
CAP_PASSED: Final = "cap that was passed"
OVER_WHEN_RIGHT: Final = (DIFFERS, CREDIT_PASSED)
# New ones of one shard in one run; more than a person reads, and what broke them is one thing.
NEW_MAX: Final = 100
RIGHT_AGAIN: Final = "it was compared again and is right"
COMPARED_BY: Final = "the comparison of registers"


@dataclass(frozen=True, slots=True)
class Wrong:
    """`used_pico`: the most that a register had which was passed."""

    kind: str
    tenant_id: int
    register: str
    detail: str
    used_pico: int | None = None


def note(wrong: Sequence[Wrong], compared: Collection[str], *, now: datetime) -> None:
    """Open what is new, renew what is still so, and end what is right again of these registers."""
    known = {
        (finding.what, finding.register): finding
        for finding in Finding.objects.filter(resolved_at=None).exclude(register="")
        if finding.register in compared
    }
    new = [each for each in wrong if (each.kind, each.register) not in known]
    for each in _unexplained(new)[:NEW_MAX]:
        _open(each, now)
    seen = {(each.kind, each.register): each for each in wrong}
    for at, finding in known.items():
        if at in seen:
            _renew(finding, seen[at], now)
        elif finding.what in OVER_WHEN_RIGHT:
            _end(finding, now)


def open_words(kind: str) -> list[str]:
    """The open ones, as the invariant says them."""
    found = Finding.objects.filter(resolved_at=None, what=kind).order_by("found_at", "pk")
    return [finding.detail for finding in found[: findings.SHOWN_MAX]]


def _unexplained(new: Sequence[Wrong]) -> list[Wrong]:
    """Without those of which a person has said why a register has as much as it has."""
    named = [each.register for each in new if each.kind not in OVER_WHEN_RIGHT]
    said = Finding.objects.filter(register__in=named, what=CAP_PASSED, resolved_at__isnull=False)
    most: dict[str, int] = {}
    for register, digest in said.values_list("register", "digest"):
        most[register] = max(int(digest or 0), most.get(register, 0))
    return [
        each
        for each in new
        if each.kind in OVER_WHEN_RIGHT or (each.used_pico or 0) > most.get(each.register, 0)
    ]


def _open(wrong: Wrong, now: datetime) -> None:
    finding = Finding.objects.create(
        what=wrong.kind,
        first=wrong.tenant_id,
        after=wrong.tenant_id + 1,
        register=wrong.register,
        detail=wrong.detail[:400],
        digest=wrong.used_pico,
        found_at=now,
        seen_at=now,
    )
    logger.error("%s: %s", finding.what, wrong.detail)


def _renew(finding: Finding, wrong: Wrong, now: datetime) -> None:
    finding.detail, finding.seen_at = wrong.detail[:400], now
    if wrong.used_pico is not None:
        finding.digest = max(int(finding.digest or 0), wrong.used_pico)
    finding.save(update_fields=["detail", "seen_at", "digest"])


def _end(finding: Finding, now: datetime) -> None:
    finding.reason, finding.resolved_by, finding.resolved_at = RIGHT_AGAIN, COMPARED_BY, now
    finding.save(update_fields=["reason", "resolved_by", "resolved_at"])
    logger.warning("%s: right again", finding)
