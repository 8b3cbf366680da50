"""A ranking as JSON: for the caller who asked, for the attempt's record and for the console.

Amounts are exact decimal strings in US dollars; lists are bounded, and say what they left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from billing.money import usd_json
from gateway.routing.rejections import Rejection
from gateway.routing.router import Ranking
from providers.chat import Candidate

ROWS_MAX = 20


@dataclass(frozen=True, slots=True)
class AttemptNote:
    """What became of one try, in the order of trying."""

    sku: str
    outcome: str
    reason: str = ""


def explanation(ranking: Ranking, *, attempts: Sequence[AttemptNote] = ()) -> dict[str, Any]:
    """Who was considered, in which order, at which expected cost, and what came of it."""
    candidates = ranking.candidates[:ROWS_MAX]
    rejections = ranking.rejections[:ROWS_MAX]
    result: dict[str, Any] = {
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


def _candidate(at: int, candidate: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = {
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


def reasons(rejections: Sequence[Rejection]) -> list[dict[str, Any]]:
    """The rejections as rows, also for the refusal that says why nothing can serve."""
    return [
        {"offer": r.sku, "provider": r.provider, "code": r.code, "reason": r.reason}
        for r in rejections
    ]


def _attempt(note: AttemptNote) -> dict[str, str]:
    row = {"offer": note.sku, "outcome": note.outcome}
    if note.reason:
        row["reason"] = note.reason
    return row
