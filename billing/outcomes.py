"""How an attempt can end, and what that says of its seller. Pure; every list of outcomes reads it.

What an attempt comes to is one of these names; boards, filters, lanes and lists ask here which
were served, whose doing an end was, and in which words it is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

OK: Final = "ok"
STOPPED: Final = "stopped"
CLIENT_CANCELLED: Final = "client_cancelled"
CLIENT_STALLED: Final = "client_stalled"
UPSTREAM_ERROR: Final = "upstream_error"
UPSTREAM_CUT: Final = "upstream_cut"
REFUSED: Final = "refused"
DEADLINE: Final = "deadline"
GATEWAY_ERROR: Final = "gateway_error"
UNKNOWN: Final = "unknown"


class Verdict(Enum):
    """Whose doing an end was. Only the first and the fourth say anything of a seller."""

    SERVED = "served"  # all that was asked for came
    LEFT = "left"  # the caller went, or stopped reading
    REFUSED = "refused"  # by the seller, for what was asked
    FAILED = "failed"  # the seller's failure
    OURS = "ours"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`words` and `tone` (good, odd, bad or none) are how it is told."""

    verdict: Verdict
    words: str
    tone: str

    @property
    def broke_off(self) -> bool:
        return self.verdict not in (Verdict.SERVED, Verdict.LEFT)


OUTCOMES: Final[Mapping[str, Outcome]] = {
    OK: Outcome(Verdict.SERVED, "200", "good"),
    # By us, at the caller's own ceiling, which the seller did not keep to.
    STOPPED: Outcome(Verdict.SERVED, "stopped at the caller's ceiling", ""),
    CLIENT_CANCELLED: Outcome(Verdict.LEFT, "cancelled by the client", ""),
    CLIENT_STALLED: Outcome(Verdict.LEFT, "client stopped reading", "warn"),
    UPSTREAM_ERROR: Outcome(Verdict.FAILED, "seller failed", "bad"),
    UPSTREAM_CUT: Outcome(Verdict.FAILED, "cut off by the seller", "bad"),
    REFUSED: Outcome(Verdict.REFUSED, "refused by the seller", "warn"),
    DEADLINE: Outcome(Verdict.FAILED, "deadline passed", "bad"),
    GATEWAY_ERROR: Outcome(Verdict.OURS, "trouble of the gateway", "bad"),
    UNKNOWN: Outcome(Verdict.UNKNOWN, "outcome unknown", "bad"),
}


def of(name: str) -> Outcome:
    """An event of an older version may have ended in a way that nobody knows any more."""
    known = OUTCOMES.get(name)
    return known or Outcome(Verdict.UNKNOWN, name.replace("_", " "), "bad")


def verdict_of(name: str, *, was_answering: bool) -> Verdict:
    """A deadline that passed during an answer is a long answer, or a client that reads slowly."""
    if name == DEADLINE and was_answering:
        return Verdict.UNKNOWN
    return of(name).verdict
