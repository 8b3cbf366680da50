"""What a proposer of draft tokens is to the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Draft:
    """Proposed continuation and its evidence class, by which acceptance is learned."""

    tokens: list[int]
    evidence: int


NO_DRAFT = Draft(tokens=[], evidence=0)


class Proposer(Protocol):
    """One per request; sees the request's own tokens only, so nothing leaks between tenants."""

    def propose(self, tokens: Sequence[int], limit: int) -> Draft: ...
