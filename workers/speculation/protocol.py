"""What a proposer of draft tokens is to the engine.

A proposer serves all requests of a step at once and knows them by key. It reads a request's own
tokens, and what it remembers of others it keeps apart by their salt: nothing leaks between tenants.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Evidence(NamedTuple):
    """Why a token is proposed; how often such tokens are right is learned for each kind apart."""

    proposer: str
    strength: int
    depth: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposed continuation, and the evidence for each of its tokens.

    The first `borrowed` tokens are another draft's, in which they are judged.
    """

    tokens: list[int] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    borrowed: int = 0


NO_DRAFT = Draft()


@dataclass(frozen=True, slots=True)
class Ask:
    """One decoding request: the last of `tokens` is not computed yet, the last `guessed` of them
    are guesses themselves.

    `block_ids` are the target's blocks of the request, with room for `limit` more tokens if the
    proposer `runs_model`.
    """

    key: str
    salt: str
    tokens: list[int]
    limit: int
    block_ids: list[int]
    guessed: int = 0


class Proposer(Protocol):
    # Whether a proposal takes the time of matrix products, so that it must be decided on first.
    runs_model: bool

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """A draft of up to `limit` tokens for each request, or `NO_DRAFT`."""

    def forget(self, key: str) -> None:
        """Let go what is kept of a request, which may be unknown."""


@runtime_checkable
class Watching(Protocol):
    """A proposer that reads the target's hidden states."""

    def watch(self, key: str, first: int, hidden: Tensor) -> None:
        """The states [tokens, hidden] that a step computed of a request, from position `first`."""


@runtime_checkable
class Remembering(Protocol):
    """A proposer that learns from requests which are over."""

    def remember(self, salt: str, tokens: list[int], prompt_count: int) -> None: ...
