"""Request and snapshot in, ranking out: who may serve, in which order, and why not the others.

Pure and synchronous: no I/O, no clock, no randomness, so that every decision can be replayed
from its arguments. Filters come first and each names its reason with figures; what is left
is scored by the policy. Offers whose heartbeat is overdue are ranked after all others.
"""

from dataclasses import dataclass

import msgspec

from billing import rating
from billing.kinds import ServiceTier
from billing.money import usd_per_million
from billing.prices.price_spans import COST_PRICES
from billing.rating import Price
from gateway.routing import bounds, names, policies
from gateway.routing.breaker import Breaker
from gateway.routing.policies import PolicyView, Scoring, Speeds
from gateway.routing.rejections import Rejection
from providers.chat import FETCHES, Candidate, ChatRequest, OfferView
from providers.wires import registry, service_tiers

SUPPLIERS = (COST_PRICES,)
DEMOTED = "last: its heartbeat is overdue"
# Listing any of these says that the list is complete; else nothing is ruled out by it.
FEATURES = frozenset({"tools", "vision", "json_schema", "text_only"})


class Ranking(msgspec.Struct, frozen=True):
    """Candidates in the order in which they are tried. `known` is False for an unknown model."""

    model: str
    policy: str
    known: bool
    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]
    input_expected: int
    output_expected: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the caller's key allows and pays. Empty `models` means every model; 0 means no cap;
    the first of `price_lists` that prices an offer counts, else the list price. `caller` is whose
    failures close an offer to it alone."""

    caller: int = 0
    output_cap: int = 0
    models: frozenset[str] = frozenset()
    price_lists: tuple[int, ...] = ()


class _Rejected(Exception):
    """Carries the reason out of a filter, with the figures that a Rejection may hold."""

    def __init__(self, code: str, reason: str, **figures: int) -> None:
        super().__init__(code)
        self.code = code
        self.reason = reason
        self.figures = figures

    def of(self, offer: OfferView) -> Rejection:
        return Rejection(offer.sku, offer.provider, self.code, self.reason, **self.figures)


class _Question(msgspec.Struct, frozen=True):
    """One request's view of the filters, worked out once for all offers."""

    request: ChatRequest
    policy: PolicyView
    kind: str
    limits: Limits
    breaker: Breaker
    now_ms: int
    input_expected: int
    input_least: int
    max_input_pico: int | None
    max_output_pico: int | None
    scoring: Scoring


def rank(
    request: ChatRequest,
    *,
    offers_by_model: names.OffersByModel,
    policy: PolicyView,
    limits: Limits,
    speeds: Speeds,
    breaker: Breaker,
    now_ms: int,
) -> Ranking:
    """Filter, score and order every offer of the models that the request names."""
    question = _question(request, policy, limits, speeds, breaker, now_ms)
    ranked: list[tuple[tuple[object, ...], Candidate]] = []
    rejections: list[Rejection] = []
    seen: set[int] = set()
    for model_position, name in enumerate(_models(request)):
        for offer in offers_by_model.named(name):
            if offer.id in seen:
                continue
            seen.add(offer.id)
            try:
                candidate = _candidate(question, offer)
                key = _order_key(question, candidate, model_position)
            except _Rejected as no:
                rejections.append(no.of(offer))
            else:
                ranked.append((key, candidate))
    ranked.sort(key=lambda pair: pair[0])
    candidates = [candidate for _, candidate in ranked]
    if not (policy.allow_fallbacks and request.routing.allow_fallbacks):
        rejections += [_no_fallback(c) for c in candidates[1:]]
        del candidates[1:]
    return Ranking(
        model=request.model,
        policy=question.kind,
        known=bool(seen),
        candidates=tuple(candidates),
        rejections=tuple(rejections),
        input_expected=question.input_expected,
        output_expected=question.scoring.output_expected,
    )


def _models(request: ChatRequest) -> tuple[str, ...]:
    """The asked model, then the caller's fallback models, each once."""
    return tuple(dict.fromkeys((request.model, *request.routing.models)))


def _question(
    request: ChatRequest,
    policy: PolicyView,
    limits: Limits,
    speeds: Speeds,
    breaker: Breaker,
    now_ms: int,
) -> _Question:
    asked = request.max_output_tokens or bounds.OUTPUT_TOKENS_EXPECTED
    return _Question(
        request=request,
        policy=policy,
        kind=policies.effective(policy, request.routing.sort),
        limits=limits,
        breaker=breaker,
        now_ms=now_ms,
        input_expected=bounds.input_expected(request),
        input_least=bounds.input_least(request),
        max_input_pico=_lower(policy.max_input_pico, request.routing.max_input_pico),
        max_output_pico=_lower(policy.max_output_pico, request.routing.max_output_pico),
        scoring=Scoring(
            output_expected=bounds.output_expected(request.n * asked, request.n),
            speeds=speeds,
            pinned={sku: at for at, sku in enumerate(policy.pinned_skus)},
        ),
    )


def _lower(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)


def _candidate(question: _Question, offer: OfferView) -> Candidate:
    """The offer with its prices pinned and its costs bounded, or _Rejected."""
    _check_allowed(question, offer)
    _check_able(question, offer)
    request = question.request
    if request.routing.require_parameters:
        _check_unsaid(request, offer)
    input_bound = bounds.input_bound(request, offer)
    limit, limited_by = bounds.output_limit(request, offer, cap=question.limits.output_cap)
    _check_thinking(request, limit, limited_by)
    output_bound = request.n * limit
    prices, expected_pico, worst_pico = _costs(question, offer, input_bound, output_bound)
    cost_prices = prices if offer.book is None else _pinned(question, offer, SUPPLIERS)
    _check_there(question, offer)
    score, why = policies.score(question.kind, offer, expected_pico, question.scoring)
    if offer.demoted:
        why = f"{DEMOTED}; {why}"
    return Candidate(
        offer=offer,
        prices=prices,
        expected_pico=expected_pico,
        worst_pico=worst_pico,
        score=score,
        why=why,
        input_bound=input_bound,
        output_bound=output_bound,
        max_output_tokens=limit,
        cost_prices=cost_prices,
        limited_by=limited_by,
    )


def _check_thinking(request: ChatRequest, limit: int, limited_by: str) -> None:
    """A budget to think that leaves nothing to say is the caller's to change; it is not cut."""
    if limited_by and limit <= request.thinking_tokens:
        raise _Rejected(
            "thinking_cut",
            f"a thinking budget of {request.thinking_tokens:,} tokens leaves nothing of an output "
            f"limit of {limit:,} (by the {limited_by})",
            wanted=request.thinking_tokens,
            room=limit,
        )


def refusal_to(
    offer: OfferView, policy: PolicyView, models_allowed: frozenset[str]
) -> tuple[str, str] | None:
    """Why whoever has this policy and key may never call the offer, as code and words."""
    if models_allowed and offer.model not in models_allowed:
        return "model_not_allowed", f"the key may not use {offer.model}"
    if policy.kind == policies.PINNED and offer.sku not in policy.pinned_skus:
        return "not_pinned", "not among the offers that the policy pins"
    if policy.providers_allowed and offer.provider not in policy.providers_allowed:
        return "provider_not_allowed", f"{offer.provider} is not on the allow-list"
    if offer.not_routable and not offer.returns_ms:
        return "not_routable", offer.not_routable
    return None


def _check_allowed(question: _Question, offer: OfferView) -> None:
    """Whether operator, tenant, key and caller let this offer be used."""
    refusal = refusal_to(offer, question.policy, question.limits.models)
    if refusal is not None:
        raise _Rejected(*refusal)
    routing = question.request.routing
    if routing.only and not any(names.matches(token, offer) for token in routing.only):
        raise _Rejected("not_in_only", f"not in provider.only: {', '.join(routing.only)}")
    if routing.ignore and any(names.matches(token, offer) for token in routing.ignore):
        raise _Rejected("ignored", "named in provider.ignore")


def _check_there(question: _Question, offer: OfferView) -> None:
    """Whether it can be called now. Asked last: what never passes by itself is said first."""
    if offer.not_routable:
        raise _Rejected("away", offer.not_routable, retry_after_ms=offer.returns_ms)
    breaker, caller, now_ms = question.breaker, question.limits.caller, question.now_ms
    if not breaker.allow(offer.access, caller, now_ms):
        raise _Rejected(
            "breaker_open",
            breaker.why(offer.access, caller, now_ms),
            retry_after_ms=breaker.retry_after_ms(offer.access, caller, now_ms),
        )


def _check_able(question: _Question, offer: OfferView) -> None:
    """Whether this offer can serve such a request at all."""
    request = question.request
    context = offer.context_length
    if context and not request.unbounded and question.input_least > context:
        raise _Rejected(
            "context_too_short",
            f"a prompt of at least {question.input_least:,} tokens does not fit into "
            f"a context of {context:,}",
            wanted=question.input_least,
            room=context,
        )
    if not context and bounds.prompt_bound(request, model=offer.model) is None:
        what = request.unbounded or "a picture of unknown size"
        raise _Rejected("context_unknown", f"{what} has no bound in a context of unknown length")
    if request.service_tier and offer.wire == "anthropic":
        raise _Rejected("no_price", "its API knows no such service tier, so none has a price")
    if request.service_tier == service_tiers.BATCH and not offer.in_house:
        raise _Rejected("no_price", "it sells its batch tier through files, not in single calls")
    if not request.needs:
        return
    if "surcharge" in request.needs:
        raise _Rejected("no_price", "a field makes the vendor charge above its published price")
    if "server_tools" in request.needs:
        raise _Rejected("no_price", "tools that the vendor runs are billed by the call, unpriced")
    if offer.in_house:
        _check_fetching(request, offer)
    missing = registry.lacks(request, offer)
    if missing:
        raise _Rejected("dialect", f"{', '.join(sorted(missing))} cannot be said in its API")
    if not FEATURES.isdisjoint(offer.capabilities):
        missing = (request.needs & FEATURES) - offer.capabilities
        if missing:
            raise _Rejected("capability", f"does not support {', '.join(sorted(missing))}")


def _check_unsaid(request: ChatRequest, offer: OfferView) -> None:
    if unsaid := registry.left_out(request, offer):
        raise _Rejected("parameters", f"it would not be sent {', '.join(unsaid)}")


def _check_fetching(request: ChatRequest, offer: OfferView) -> None:
    """Our machines stand where private addresses lead somewhere, and names change what they mean
    between our look at them and theirs."""
    if "addresses" in request.needs and FETCHES not in offer.capabilities:
        raise _Rejected(
            "capability", "it may not fetch what stands at an address; send the data itself"
        )
    if "odd_parts" in request.needs:
        raise _Rejected("capability", "a part of a message is of a kind that it is not sent")


def _costs(
    question: _Question, offer: OfferView, input_bound: int, output_bound: int
) -> tuple[tuple[Price, ...], int, int]:
    """The prices pinned for the tiers that may serve, the expected and the greatest cost."""
    tier = question.request.service_tier
    prices = _pinned(question, offer, question.limits.price_lists)
    try:
        price = _price_expected(prices, tier, question.input_expected)
        worst_pico = rating.worst_case(prices, input_bound=input_bound, output_bound=output_bound)
    except rating.PriceNotFound:
        raise _Rejected(
            "no_price", f"no price in force for service tier {ServiceTier(tier).word}"
        ) from None
    if "audio" in question.request.needs and price.input_audio_pico is None:
        raise _Rejected("no_price", "no price in force for audio input")
    if "audio_output" in question.request.needs and price.output_audio_pico is None:
        raise _Rejected("no_price", "no price in force for audio output")
    if question.max_input_pico is not None:
        _check_ceiling("input", price.input_pico, question.max_input_pico)
    if question.max_output_pico is not None:
        _check_ceiling("output", price.output_pico, question.max_output_pico)
    expected_pico = (
        question.input_expected * price.input_pico
        + min(question.scoring.output_expected, output_bound) * price.output_pico
        + price.request_pico
    )
    return prices, expected_pico, worst_pico


def _pinned(
    question: _Question, offer: OfferView, price_lists: tuple[int, ...]
) -> tuple[Price, ...]:
    """What these lists ask now, for each tier that may come to be billed."""
    prices = offer.prices_at(price_lists, question.now_ms)
    if len(prices) == 1:
        return prices
    billable = service_tiers.BILLABLE[question.request.service_tier]
    return tuple(price for price in prices if price.service_tier in billable)


def _price_expected(prices: tuple[Price, ...], tier: int, input_tokens: int) -> Price:
    if len(prices) == 1 and prices[0].service_tier == tier and not prices[0].context_over:
        return prices[0]  # the usual case, at a third of the cost of choosing
    return rating.choose(prices, service_tier=tier, input_tokens=input_tokens)


def _check_ceiling(side: str, price_pico: int, ceiling_pico: int) -> None:
    if price_pico > ceiling_pico:
        raise _Rejected(
            "over_price_ceiling",
            f"{side} at ${usd_per_million(price_pico)} per million tokens is above "
            f"the ceiling of ${usd_per_million(ceiling_pico)}",
        )


def _order_key(
    question: _Question, candidate: Candidate, model_position: int
) -> tuple[object, ...]:
    """Heartbeat, then the caller's own order of models and sellers, then the policy."""
    offer, order = candidate.offer, question.request.routing.order
    at = 0
    if order:
        at = next((i for i, token in enumerate(order) if names.matches(token, offer)), len(order))
        if at == len(order) and not question.request.routing.allow_fallbacks:
            raise _Rejected("not_in_order", "not in provider.order, and fallbacks are off")
    return (
        offer.demoted,
        model_position,
        at,
        candidate.score,
        candidate.expected_pico,
        offer.sku,
    )


def _no_fallback(candidate: Candidate) -> Rejection:
    offer = candidate.offer
    return Rejection(
        offer.sku, offer.provider, "fallbacks_off", "eligible, but only the first is tried"
    )


def without(ranking: Ranking, kept: list[Candidate], rejected: list[Rejection]) -> Ranking:
    """The same ranking with these candidates only, and the reasons of the others."""
    return msgspec.structs.replace(
        ranking, candidates=tuple(kept), rejections=(*ranking.rejections, *rejected)
    )
