"""What is left of a ranking when a cap has refused its hold: other offers, or a shorter answer.

A cap of one model or provider rules out the offers it is for and no others; a limit of tokens per
minute those that could take more than all of it. A session that has something left gets an answer
cut to that, and so does a caller that named no limit, who asked for no certain length. Every
other cap refuses the request as it is. Pure.
"""

from billing.holding.holds import Refused
from billing.money import PICO_PER_NANO
from gateway.dataplane.exchange import Exchange
from gateway.routing import ceilings
from gateway.routing.bounds import OUTPUT_TOKENS_EXPECTED
from gateway.routing.rejections import Rejection
from gateway.routing.router import Ranking, without
from providers.chat import Candidate


def narrowed(exchange: Exchange, refused: Refused) -> Ranking | None:
    """The ranking to plan again by; None where the refusal stands. Each time it is shorter or
    cheaper, so that planning comes to an end."""
    if refused.window == "tpm":
        return _shorter(exchange, refused) or _within_minute(exchange.ranking, refused)
    if refused.code != "over_budget":
        return None
    if refused.scope_kind in ("model", "provider"):
        return _without(exchange.ranking, refused)
    if refused.scope_kind == "session" and refused.left_nano:
        return _within_session(exchange, refused)
    if exchange.request.max_output_tokens is None:
        return _within_budget(exchange, refused)
    return None


def _without(ranking: Ranking, refused: Refused) -> Ranking | None:
    """The offers of other models or providers, if there are any."""
    kept = [each for each in ranking.candidates if _name(each, refused) != refused.scope_id]
    if not kept or len(kept) == len(ranking.candidates):
        return None
    reason = f"no room in the {refused.window} budget of {refused.scope_kind} {refused.scope_id}"
    out = [
        Rejection(each.offer.sku, each.offer.provider, "over_budget", reason)
        for each in ranking.candidates
        if _name(each, refused) == refused.scope_id
    ]
    return without(ranking, kept, out)


def _name(candidate: Candidate, refused: Refused) -> str:
    offer = candidate.offer
    return offer.model if refused.scope_kind == "model" else offer.provider


def _within_budget(exchange: Exchange, refused: Refused) -> Ranking | None:
    """Cut to what the budget has left, where that is an answer of the usual length still."""
    cut = ceilings.within(
        exchange.ranking,
        exchange.request,
        ceiling_pico=refused.left_nano * PICO_PER_NANO,
        cut_by=ceilings.BUDGET,
        least=OUTPUT_TOKENS_EXPECTED,
    )
    return cut if cut.candidates else None


def _shorter(exchange: Exchange, refused: Refused) -> Ranking | None:
    """Cut to what the minute has left or, where that is too little, to what all of it would be."""
    request, ranking = exchange.request, exchange.ranking
    if request.max_output_tokens is not None:
        return None
    rooms = [refused.left_nano]
    if exchange.hold.tokens > refused.limit_nano:
        rooms.append(refused.limit_nano)
    for tokens in rooms:
        cut = ceilings.shortened(ranking, request, tokens=tokens, least=OUTPUT_TOKENS_EXPECTED)
        if cut.candidates:
            return cut
    return None


def _within_minute(ranking: Ranking, refused: Refused) -> Ranking | None:
    """The offers that can take no more than the whole limit, where others are the dearer ones."""
    limit = refused.limit_nano
    kept = [each for each in ranking.candidates if each.tokens_bound <= limit]
    if not kept or len(kept) == len(ranking.candidates):
        return None
    out = [
        Rejection(
            each.offer.sku,
            each.offer.provider,
            "over_rate_limit",
            f"may take {each.tokens_bound:,} tokens of {limit:,} per minute",
        )
        for each in ranking.candidates
        if each.tokens_bound > limit
    ]
    return without(ranking, kept, out)


def _within_session(exchange: Exchange, refused: Refused) -> Ranking | None:
    """Cut to what the session has left, where that buys an answer and was not tried yet."""
    if any(each.cut_by == ceilings.SESSION_MAX_COST for each in exchange.candidates):
        return None
    cut = ceilings.within(
        exchange.ranking,
        exchange.request,
        ceiling_pico=refused.left_nano * PICO_PER_NANO,
        cut_by=ceilings.SESSION_MAX_COST,
    )
    return cut if cut.candidates else None
