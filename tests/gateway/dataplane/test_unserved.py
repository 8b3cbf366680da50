"""Nothing can serve: what the caller is told, by the causes of the rejections."""

import re
from pathlib import Path

from gateway.dataplane import narrowing, unserved
from gateway.errors import GatewayError
from gateway.routing import ceilings, router
from gateway.routing.breaker import Breaker
from gateway.routing.policies import PolicyView
from gateway.routing.rejections import CAUSES, OWN_FAULTS, Cause
from gateway.routing.router import Ranking
from providers.chat import OfferView
from tests.factories import anthropic_request, openai_request
from tests.gateway.routing.test_routing import ACME, BOLT, order, rank, seller


def told(ranking: Ranking, *offers: OfferView) -> GatewayError:
    return unserved.error_of(
        ranking,
        {offer.model: (offer,) for offer in offers},
        policy=PolicyView(),
        models_allowed=frozenset(),
    )


def test_a_prompt_that_fits_nowhere_is_the_request_s_own_fault() -> None:
    request = openai_request(messages=[{"role": "user", "content": "x" * 60_000}])

    fault = told(rank(ACME, seller(2, "bolt", not_routable="x"), request=request))

    assert (fault.status, fault.code) == (400, "context_length_exceeded")
    assert fault.detail == {"wanted_tokens": 10_005, "room_tokens": 8_192}


def test_what_never_fits_is_said_first_also_of_an_offer_that_is_away() -> None:
    breaker = Breaker()
    breaker.failure(BOLT.access, 0, 0, permanent=True)
    request = openai_request(messages=[{"role": "user", "content": "x" * 60_000}])

    assert told(rank(BOLT, request=request, breaker=breaker)).code == "context_length_exceeded"


def test_an_offer_that_would_serve_and_is_away_makes_it_temporary() -> None:
    breaker = Breaker()
    breaker.failure(BOLT.access, 0, 0, retry_after_ms=7_001)
    small = seller(1, "acme", context_length=20)
    request = openai_request(messages=[{"role": "user", "content": "x" * 600}])
    removed = seller(3, "cura", not_routable="removed: x", returns_ms=10_000)

    error = told(rank(small, BOLT, removed, request=request, breaker=breaker))

    assert (error.status, error.code, error.retry_after_s) == (503, "no_eligible_offer", 8)
    assert error.retryable


def test_what_passes_by_no_waiting_is_not_worth_another_call() -> None:
    breaker = Breaker()
    breaker.failure(ACME.access, 0, 0, permanent=True)

    error = told(rank(ACME, breaker=breaker))

    assert (error.status, error.retryable) == (503, False)


THINKING = {"type": "enabled", "budget_tokens": 1_024}


def test_a_thinking_budget_that_no_longer_fits_is_refused_and_not_cut() -> None:
    # given one seller whose limit leaves nothing beside the thoughts, and one that leaves enough
    request = anthropic_request(max_tokens=32_000, thinking=THINKING)
    tight = seller(1, "acme", wire="anthropic", max_output_tokens=1_024)
    roomy = seller(2, "bolt", wire="anthropic", max_output_tokens=1_025)

    assert order(rank(tight, roomy, request=request)) == ["bolt"]
    error = told(rank(tight, request=request))
    assert (error.status, error.code, error.param) == (
        400,
        "thinking_budget_too_large",
        "thinking.budget_tokens",
    )
    assert error.detail == {"wanted_tokens": 1_024, "room_tokens": 1_024}
    assert "1,024 tokens leaves nothing of an output limit of 1,024 (by the model)" in error.message


def test_a_budget_that_the_caller_itself_set_above_its_limit_is_the_vendor_s_to_judge() -> None:
    request = anthropic_request(max_tokens=100, thinking=THINKING)

    assert order(rank(seller(1, "acme", wire="anthropic"), request=request)) == ["acme"]


def test_a_ceiling_does_not_cut_into_a_thinking_budget() -> None:
    request = anthropic_request(max_tokens=2_000, thinking=THINKING)
    ranking = rank(seller(1, "acme", wire="anthropic"), request=request)
    worst = ranking.candidates[0].worst_pico

    def cut(tokens: int) -> Ranking:
        ceiling = worst - tokens * 400_000
        return ceilings.within(ranking, request, ceiling_pico=ceiling, cut_by="max_cost")

    assert cut(2_000 - 1_025).candidates[0].max_output_tokens == 1_025
    assert cut(2_000 - 1_024).candidates == ()


def test_every_reason_of_the_router_has_a_cause() -> None:
    sources = [Path(module.__file__ or "") for module in (router, ceilings, narrowing)]
    text = "".join(source.read_text() for source in sources)
    named = set(re.findall(r'_Rejected\(\s*"(\w+)"', text))
    named |= set(re.findall(r'return "(\w+)", f?"', text))

    assert {"breaker_open", "model_not_allowed"} <= named
    assert named <= set(CAUSES)
    assert {code for code, cause in CAUSES.items() if cause is Cause.REQUEST} == set(OWN_FAULTS)
