"""Ceilings on what a request may cost: candidates are cut until they fit. Pure.

The caller's own (`max_cost`, its session's), and what a budget or a limit of tokens a minute has
left.

The output limit that goes upstream is lowered until the most that a candidate can cost is within
the ceiling, so that the ceiling holds because it is enforced. A candidate whose input alone could
cost more is none.
"""

from bisect import bisect_right

import msgspec

from billing import rating
from billing.money import usd_json
from gateway.routing import router
from gateway.routing.rejections import Rejection
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest

OVER_CEILING = "over_cost_ceiling"
MAX_COST = "max_cost"
SESSION_MAX_COST = "session_max_cost"
BUDGET = "budget"
RATE_LIMIT = "rate_limit"


def within(
    ranking: Ranking, request: ChatRequest, *, ceiling_pico: int, cut_by: str, least: int = 1
) -> Ranking:
    """The ranking with every candidate cut to cost at most this; those that cannot be, or only to
    an answer of fewer than `least` tokens, rejected. `cut_by` is what lowers the limit."""
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    for candidate in ranking.candidates:
        if candidate.worst_pico <= ceiling_pico:
            kept.append(candidate)
            continue
        limit = _output_within(candidate, request, ceiling_pico)
        if limit < max(1, min(least, candidate.max_output_tokens), request.thinking_tokens + 1):
            rejected.append(_rejection(candidate, request, ceiling_pico, cut_by))
        else:
            kept.append(_cut(candidate, request, limit, cut_by))
    return router.without(ranking, kept, rejected)


def shortened(ranking: Ranking, request: ChatRequest, *, tokens: int, least: int) -> Ranking:
    """The ranking with every candidate cut to take so many tokens in and out, as far as an answer
    of `least` tokens remains of it."""
    kept = []
    for candidate in ranking.candidates:
        limit = (tokens - candidate.input_bound) // request.n
        if candidate.tokens_bound <= tokens:
            kept.append(candidate)
        elif limit >= max(min(least, candidate.max_output_tokens), request.thinking_tokens + 1):
            kept.append(_cut(candidate, request, limit, RATE_LIMIT))
    return router.without(ranking, kept, [])


def least_pico(candidate: Candidate, request: ChatRequest) -> int:
    """What must be set aside for one token of output for each choice."""
    return _worst_pico(candidate, request, 1)


def _output_within(candidate: Candidate, request: ChatRequest, ceiling_pico: int) -> int:
    """The greatest output limit of one choice at which the ceiling cannot be passed; -1 where the
    input alone can."""
    limits = range(candidate.max_output_tokens + 1)
    return bisect_right(limits, ceiling_pico, key=lambda n: _worst_pico(candidate, request, n)) - 1


def _worst_pico(candidate: Candidate, request: ChatRequest, limit: int) -> int:
    return rating.worst_case(
        candidate.prices,
        input_bound=candidate.input_bound,
        output_bound=request.n * limit,
    )


def _cut(candidate: Candidate, request: ChatRequest, limit: int, cut_by: str) -> Candidate:
    return msgspec.structs.replace(
        candidate,
        worst_pico=_worst_pico(candidate, request, limit),
        expected_pico=min(candidate.expected_pico, _worst_pico(candidate, request, limit)),
        output_bound=request.n * limit,
        max_output_tokens=limit,
        cut_by=cut_by,
    )


def _rejection(
    candidate: Candidate, request: ChatRequest, ceiling_pico: int, cut_by: str
) -> Rejection:
    needed = usd_json(least_pico(candidate, request)).decode()
    offer = candidate.offer
    return Rejection(
        offer.sku,
        offer.provider,
        OVER_CEILING,
        f"its prompt and one token may cost ${needed}, above {cut_by} of "
        f"${usd_json(ceiling_pico).decode()}",
    )
