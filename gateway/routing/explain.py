"""A ranking as JSON: for the caller who asked, for the attempt's record and for the console.

Amounts are exact decimal strings in US dollars; lists are bounded, and say what they left out. A
record stands with every request for good, so it keeps figures and codes; words are made of them
when somebody looks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from billing.money import usd_json
from gateway.routing import policies
from gateway.routing.explained import (
    AttemptRow,
    CandidateRow,
    Explanation,
    KeptRanking,
    KeptRow,
    RejectionRow,
)
from gateway.routing.rejections import Rejection
from gateway.routing.router import DEMOTED, Ranking
from providers.chat import Candidate

ROWS_MAX: Final = 20
# Of each list, with every request.
KEPT_MAX: Final = 10
UNMEASURED: Final = -1
# What a kept row ends with unless it says otherwise: its score is its expected cost, it is not
# demoted, and nobody limits its answer. The sku and two costs are always said.
FIGURES: Final = 3
ROW_ENDS: Final = ("", 0, 0, None, False, 0, "")


@dataclass(frozen=True, slots=True)
class AttemptNote:
    """What became of one try, in the order of trying."""

    sku: str
    outcome: str
    reason: str = ""
    left_out: Sequence[str] = ()


def explanation(ranking: Ranking, *, attempts: Sequence[AttemptNote] = ()) -> Explanation:
    """Who was considered, in which order, at which expected cost, and what came of it."""
    candidates = ranking.candidates[:ROWS_MAX]
    rejections = ranking.rejections[:ROWS_MAX]
    result: Explanation = {
        "model": ranking.model,
        "policy": ranking.policy,
        "expected_tokens": {"input": ranking.input_expected, "output": ranking.output_expected},
        "candidates": [_candidate(at, c) for at, c in enumerate(candidates, start=1)],
        "rejections": reasons(rejections),
    }
    left_out = len(ranking.candidates) - len(candidates) + len(ranking.rejections)
    left_out -= len(rejections)
    if left_out:
        result["left_out"] = left_out
    if attempts:
        result["attempts"] = [_attempt(note) for note in attempts]
    return result


def kept(ranking: Ranking) -> KeptRanking:
    """What the request's record keeps: a row per candidate, from its sku on as far as there is
    something to say; and the rejected skus by code and reason."""
    candidates = ranking.candidates[:KEPT_MAX]
    rejections = ranking.rejections[:KEPT_MAX]
    rejected: dict[tuple[str, str], list[str]] = {}
    for each in rejections:
        rejected.setdefault((each.code, each.reason), []).append(each.sku)
    left_out = len(ranking.candidates) + len(ranking.rejections)
    left_out -= len(candidates) + len(rejections)
    said: KeptRanking = {
        "model": ranking.model,
        "tokens": (ranking.input_expected, ranking.output_expected),
    }
    if candidates:
        said["taken"] = [_kept_row(each) for each in candidates]
    if rejected:
        said["not"] = [(code, reason, skus) for (code, reason), skus in rejected.items()]
    if left_out:
        said["left_out"] = left_out
    return said


def _kept_row(candidate: Candidate) -> KeptRow:
    score: float | None = candidate.score if math.isfinite(candidate.score) else UNMEASURED
    if score == candidate.expected_pico:
        score = None
    by = candidate.cut_by or candidate.limited_by
    row: list[str | int | float | bool | None] = [
        candidate.offer.sku,
        candidate.expected_pico,
        candidate.worst_pico,
        score,
    ]
    row += [candidate.offer.demoted, candidate.max_output_tokens if by else 0, by]
    while len(row) > FIGURES and row[-1] == ROW_ENDS[len(row) - 1]:
        row.pop()
    return row


def told(record: Mapping[str, Any], policy: str) -> Explanation:
    """The explanation that a record stands for. Records of before are one already."""
    if "candidates" in record:
        return cast(Explanation, dict(record))
    sent, received = record["tokens"]
    result: Explanation = {
        "model": record["model"],
        "policy": policy,
        "expected_tokens": {"input": sent, "output": received},
        "candidates": [
            _told_row(at, row, policy) for at, row in enumerate(record.get("taken", ()), start=1)
        ],
        "rejections": [
            {"offer": sku, "provider": _provider(sku), "code": code, "reason": reason}
            for code, reason, skus in record.get("not", ())
            for sku in skus
        ],
    }
    if "left_out" in record:
        result["left_out"] = record["left_out"]
    return result


def _told_row(at: int, row: Sequence[Any], policy: str) -> CandidateRow:
    whole: tuple[Any, ...] = (*row, *ROW_ENDS[len(row) :])
    sku, expected_pico, worst_pico, score, is_demoted, limit, by = whole
    if score is None:
        score = float(expected_pico)
    is_measured = score != UNMEASURED
    why = policies.words(policy, score if is_measured else math.inf, expected_pico)
    told_row: CandidateRow = {
        "rank": at,
        "offer": sku,
        "provider": _provider(sku),
        "expected_usd": usd_json(expected_pico).decode(),
        "greatest_usd": usd_json(worst_pico).decode(),
        "score": score if is_measured else None,
        "why": f"{DEMOTED}; {why}" if is_demoted else why,
    }
    if by:
        told_row["max_tokens"], told_row["max_tokens_by"] = limit, by
    return told_row


def _provider(sku: str) -> str:
    return sku.partition("/")[0]


def _candidate(at: int, candidate: Candidate) -> CandidateRow:
    row: CandidateRow = {
        "rank": at,
        "offer": candidate.offer.sku,
        "provider": candidate.offer.provider,
        "expected_usd": usd_json(candidate.expected_pico).decode(),
        "greatest_usd": usd_json(candidate.worst_pico).decode(),
        "score": candidate.score if math.isfinite(candidate.score) else None,
        "why": candidate.why,
    }
    if by := candidate.cut_by or candidate.limited_by:
        row["max_tokens"], row["max_tokens_by"] = candidate.max_output_tokens, by
    return row


def reasons(rejections: Sequence[Rejection]) -> list[RejectionRow]:
    """The rejections as rows, also for the refusal that says why nothing can serve."""
    return [
        {"offer": r.sku, "provider": r.provider, "code": r.code, "reason": r.reason}
        for r in rejections
    ]


def _attempt(note: AttemptNote) -> AttemptRow:
    row: AttemptRow = {"offer": note.sku, "outcome": note.outcome}
    if note.reason:
        row["reason"] = note.reason
    if note.left_out:
        row["left_out"] = list(note.left_out)
    return row
