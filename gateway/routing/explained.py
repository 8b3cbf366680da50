"""The shapes in which a ranking is explained: to callers, in records and on pages."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict


class ExpectedTokens(TypedDict):
    input: int
    output: int


class CandidateRow(TypedDict):
    """`score` is None where what a policy goes by was not measured."""

    rank: int
    offer: str
    provider: str
    expected_usd: str
    greatest_usd: str
    score: float | None
    why: str
    max_tokens: NotRequired[int]
    max_tokens_by: NotRequired[str]


class RejectionRow(TypedDict):
    offer: str
    provider: str
    code: str
    reason: str


class AttemptRow(TypedDict):
    offer: str
    outcome: str
    reason: NotRequired[str]
    left_out: NotRequired[list[str]]  # what of the request did not reach it


class TriedRow(TypedDict):
    """What became of one try, in an error's detail."""

    offer: str
    outcome: str
    error: str
    message: str


class Explanation(TypedDict):
    model: str
    policy: str
    expected_tokens: ExpectedTokens
    candidates: list[CandidateRow]
    rejections: list[RejectionRow]
    left_out: NotRequired[int]
    attempts: NotRequired[list[AttemptRow]]


# A row of a record: its sku, then figures as far as there is something to say.
KeptRow = Sequence[str | int | float | bool | None]
KeptRejection = tuple[str, str, list[str]]
KeptRanking = TypedDict(
    "KeptRanking",
    {
        "model": str,
        "tokens": tuple[int, int],
        "taken": list[KeptRow],
        "not": list[KeptRejection],
        "left_out": int,
    },
    total=False,
)
