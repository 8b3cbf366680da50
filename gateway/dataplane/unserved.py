"""Nothing can serve a request: what its caller is told, by the causes of the rejections. Pure.

Permanent is never told as temporary: only where an offer that would take this request is away for
a while is it worth another call, and then it is said when.
"""

from collections.abc import Iterable

from gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NobodySells,
    NoEligibleOffer,
    OverBudget,
    PermissionDenied,
)
from gateway.routing import explain, names, router
from gateway.routing.policies import PolicyView
from gateway.routing.rejections import CAUSES, OWN_FAULTS, Cause, Rejection
from gateway.routing.router import Ranking

WORDS_MAX = 3
PARAMS = {"thinking_cut": "thinking.budget_tokens"}


def error_of(
    ranking: Ranking,
    offers_by_model: names.OffersByModel,
    *,
    policy: PolicyView,
    models_allowed: frozenset[str],
) -> GatewayError:
    """Why nothing in this ranking may be tried."""
    if not ranking.known:
        callable_ = callable_models(offers_by_model, policy, models_allowed)
        return ModelNotFound(ranking.model, nearest=names.nearest(ranking.model, callable_))
    by_cause: dict[Cause, list[Rejection]] = {}
    for rejection in ranking.rejections:
        by_cause.setdefault(CAUSES[rejection.code], []).append(rejection)
    if Cause.COST in by_cause:
        return _over_ceiling(by_cause[Cause.COST])
    if Cause.AWAY in by_cause:
        return _away(ranking, by_cause[Cause.AWAY])
    if Cause.REQUEST in by_cause:
        return _own_fault(ranking, by_cause[Cause.REQUEST])
    if Cause.FORBIDDEN in by_cause:
        return _forbidden(ranking, by_cause[Cause.FORBIDDEN])
    return NobodySells(
        f"Nobody here sells `{ranking.model}` to this request: {_words(ranking.rejections)}.",
        reasons=explain.reasons(ranking.rejections),
    )


def callable_models(
    offers_by_model: names.OffersByModel, policy: PolicyView, models_allowed: frozenset[str]
) -> Iterable[str]:
    """The models that whoever has this policy and key can call, where nothing is away."""
    for model, offers in offers_by_model.items():
        if any(router.refusal_to(offer, policy, models_allowed) is None for offer in offers):
            yield model


def _away(ranking: Ranking, away: list[Rejection]) -> NoEligibleOffer:
    soonest_ms = min(rejection.retry_after_ms for rejection in away)
    return NoEligibleOffer(
        f"No offer of `{ranking.model}` can serve this request now: {_words(away)}.",
        reasons=explain.reasons(ranking.rejections),
        retry_after_s=max(1, -(-soonest_ms // 1000)),
    )


def _own_fault(ranking: Ranking, faults: list[Rejection]) -> InvalidRequest:
    first = max(faults, key=lambda fault: fault.room)
    detail = {"wanted_tokens": first.wanted, "room_tokens": first.room} if first.room else None
    return InvalidRequest(
        f"No offer of `{ranking.model}` takes this request: {first.reason}.",
        code=OWN_FAULTS[first.code],
        param=PARAMS.get(first.code),
        detail=detail,
    )


def _forbidden(ranking: Ranking, forbidden: list[Rejection]) -> PermissionDenied:
    if all(rejection.code == "model_not_allowed" for rejection in ranking.rejections):
        return PermissionDenied(
            f"This API key may not use the model `{ranking.model}`.",
            param="model",
            code="model_not_allowed",
        )
    return PermissionDenied(
        f"This API key may call no offer of `{ranking.model}`: {_words(forbidden)}.",
        param="model",
        code="offer_not_allowed",
        detail={"reasons": explain.reasons(ranking.rejections)},
    )


def _over_ceiling(over: list[Rejection]) -> OverBudget:
    return OverBudget(
        f"No offer fits the ceiling of this request: {over[0].reason}. "
        "Raise the ceiling, or shorten the prompt.",
        code="over_max_cost",
        detail={"offers": [{"offer": each.sku, "reason": each.reason} for each in over]},
    )


def _words(rejections: Iterable[Rejection]) -> str:
    """The first few reasons, each once."""
    reasons = list(dict.fromkeys(f"{each.sku}: {each.reason}" for each in rejections))
    said = "; ".join(reasons[:WORDS_MAX])
    left_out = len(reasons) - WORDS_MAX
    return f"{said}; and {left_out} more" if left_out > 0 else said
