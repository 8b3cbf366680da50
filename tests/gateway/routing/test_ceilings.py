"""Ceilings: whatever is cut can cost no more, and whatever is not cut is left as it was."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from billing import rating
from gateway.routing import ceilings
from gateway.routing.ceilings import MAX_COST, OVER_CEILING, RATE_LIMIT
from gateway.routing.router import Limits, Ranking
from providers.chat import Candidate, ChatRequest
from tests.factories import openai_request
from tests.gateway.routing.test_routing import ACME, BOLT, CURA, order, rank, rejected

OFFERS = (ACME, BOLT, CURA)
sums = st.integers(0, 3 * 10**9)
choices = st.integers(1, 4)


def ranked(*, output_cap: int = 2_000, **changed: Any) -> tuple[ChatRequest, Ranking]:
    request = openai_request(**changed)
    return request, rank(*OFFERS, request=request, limits=Limits(output_cap=output_cap))


def worst(candidate: Candidate, output_bound: int) -> int:
    return rating.worst_case(
        candidate.prices, input_bound=candidate.input_bound, output_bound=output_bound
    )


@given(sums, choices)
def test_nothing_that_is_left_can_cost_more_than_the_ceiling(ceiling: int, n: int) -> None:
    request, before = ranked(n=n)

    left = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST)

    for candidate in left.candidates:
        assert candidate.worst_pico <= ceiling
        assert candidate.worst_pico == worst(candidate, candidate.output_bound)
        assert candidate.output_bound == n * candidate.max_output_tokens
        assert candidate.expected_pico <= candidate.worst_pico


@given(sums, choices)
def test_a_cut_leaves_as_much_as_the_ceiling_pays_for(ceiling: int, n: int) -> None:
    """One more token for each choice would pass it."""
    request, before = ranked(n=n)

    left = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST)

    for candidate in left.candidates:
        if candidate.cut_by:
            assert worst(candidate, n * (candidate.max_output_tokens + 1)) > ceiling


@given(sums, choices)
def test_every_offer_is_kept_cut_or_rejected_and_none_is_lost(ceiling: int, n: int) -> None:
    request, before = ranked(n=n)

    left = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST)

    assert order(left) == [name for name in order(before) if name not in rejected(left)]
    assert len(left.candidates) + len(left.rejections) == len(OFFERS)
    for code, reason in rejected(left).values():
        assert code == OVER_CEILING
        assert f"above {MAX_COST} of $" in reason


@given(sums)
def test_what_fits_is_left_as_it_was(ceiling: int) -> None:
    request, before = ranked()

    left = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST)

    for candidate in before.candidates:
        if candidate.worst_pico <= ceiling:
            assert candidate in left.candidates


@given(sums, sums)
def test_a_higher_ceiling_never_leaves_less(a: int, b: int) -> None:
    request, before = ranked()
    low, high = (
        ceilings.within(before, request, ceiling_pico=each, cut_by=MAX_COST)
        for each in sorted((a, b))
    )
    lengths = {each.offer.sku: each.max_output_tokens for each in high.candidates}

    for candidate in low.candidates:
        assert candidate.max_output_tokens <= lengths[candidate.offer.sku]


@given(sums)
def test_a_ceiling_that_was_kept_once_is_kept_again(ceiling: int) -> None:
    request, before = ranked()

    once = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST)

    assert ceilings.within(once, request, ceiling_pico=ceiling, cut_by=MAX_COST) == once


@pytest.mark.parametrize("short_pico", [0, 1])
def test_the_last_pico_dollar_decides(short_pico: int) -> None:
    request, before = ranked()
    least = ceilings.least_pico(before.candidates[0], request)

    left = ceilings.within(before, request, ceiling_pico=least - short_pico, cut_by=MAX_COST)

    assert order(left) == (["acme"] if not short_pico else [])


def test_an_answer_shorter_than_asked_for_at_least_is_none() -> None:
    request, before = ranked()
    ceiling = worst(before.candidates[0], 255)

    anything = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST)
    usual = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST, least=256)

    assert anything.candidates[0].max_output_tokens == 255
    assert usual.candidates == ()


def test_a_budget_for_thinking_is_not_cut_into() -> None:
    request, before = ranked()
    thinking = replace(request, thinking_tokens=1_000)
    enough, short = (worst(before.candidates[0], tokens) for tokens in (1_001, 1_000))

    kept = ceilings.within(before, thinking, ceiling_pico=enough, cut_by=MAX_COST)

    assert kept.candidates[0].max_output_tokens == 1_001
    assert not ceilings.within(before, thinking, ceiling_pico=short, cut_by=MAX_COST).candidates


@given(st.integers(0, 5_000), choices, st.integers(1, 300))
def test_within_a_minute_nothing_takes_more_tokens_than_there_are(
    tokens: int, n: int, least: int
) -> None:
    request, before = ranked(n=n)

    left = ceilings.shortened(before, request, tokens=tokens, least=least)

    for candidate in left.candidates:
        assert candidate.tokens_bound <= tokens
        if candidate.cut_by:
            assert candidate.cut_by == RATE_LIMIT
            assert candidate.max_output_tokens >= min(least, 2_000)
            assert candidate.tokens_bound + n > tokens
            assert candidate.worst_pico == worst(candidate, candidate.output_bound)


@given(st.integers(0, 5_000))
def test_who_does_not_fit_into_a_minute_is_no_rejection_of_the_offer(tokens: int) -> None:
    request, before = ranked()

    left = ceilings.shortened(before, request, tokens=tokens, least=256)

    assert left.rejections == before.rejections


@given(sums)
def test_a_request_keeps_the_prices_that_were_pinned(ceiling: int) -> None:
    """A cut changes lengths; what a token costs was agreed before."""
    request, before = ranked()
    pinned = {each.offer.sku: each.prices for each in before.candidates}
    assume(ceiling > 0)

    left = ceilings.within(before, request, ceiling_pico=ceiling, cut_by=MAX_COST)

    for candidate in left.candidates:
        assert candidate.prices == pinned[candidate.offer.sku]
        assert candidate.input_bound == before.candidates[0].input_bound
