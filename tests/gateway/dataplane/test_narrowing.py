"""What a refused hold leaves: other offers, or a shorter answer; and that planning ends."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import rating
from billing.holding.holds import Refused
from billing.money import PICO_PER_NANO, nano_ceil, nano_floor
from gateway.dataplane import admission, narrowing
from gateway.dataplane.exchange import Exchange
from gateway.routing import ceilings
from gateway.routing.bounds import OUTPUT_TOKENS_EXPECTED
from gateway.routing.router import Limits, Ranking
from providers.chat import Candidate
from tests.factories import openai_request
from tests.gateway.dataplane.settling.test_dataplane_charges import PRINCIPAL, exchange
from tests.gateway.routing.test_routing import ACME, BOLT, CURA, order, rank, rejected, seller

# Dearer, and never answers with more than 50 tokens.
SHORT = seller(4, "brevity", max_output_tokens=50)


def asked(*offers: Any, output_cap: int = 4_000, **changed: Any) -> Exchange:
    """A request that was ranked and planned, and whose hold will be refused."""
    request = openai_request(**changed)
    ranking = rank(*offers, request=request, limits=Limits(output_cap=output_cap))
    made = exchange()
    return replace(
        made,
        request=request,
        ranking=ranking,
        candidates=ranking.candidates,
        hold=admission.hold_of(ranking.candidates, request, PRINCIPAL),
    )


def over_budget(kind: str, scope_id: str = "71", *, left_nano: int, window: str = "day") -> Refused:
    return Refused("over_budget", kind, scope_id, window, left_nano * 10, left_nano, 0)


def over_minute(*, limit: int, left: int) -> Refused:
    return Refused("rate_limited", "key", "5", "tpm", limit, left, 30_000)


def worst(ranking: Ranking) -> int:
    return max(candidate.worst_pico for candidate in ranking.candidates)


@pytest.mark.parametrize(
    "refused",
    [
        Refused("rate_limited", "key", "5", "rpm", 60, 0, 9_000),
        Refused("concurrency", "team", "9", "concurrency", 2, 0, 100),
        Refused("too_many_sessions", "tenant", "71", "sessions", 3, 0, 0),
        Refused("key_revoked", "key", "5", "", 0, 0, 0),
        Refused("tenant_suspended", "tenant", "71", "", 0, 0, 0),
    ],
)
def test_what_no_shorter_answer_helps_against_refuses_the_request(refused: Refused) -> None:
    assert narrowing.narrowed(asked(ACME, BOLT), refused) is None


def test_a_budget_of_one_provider_rules_out_that_provider_alone() -> None:
    before = asked(ACME, BOLT, CURA)

    left = narrowing.narrowed(before, over_budget("provider", "bolt", left_nano=5))

    assert left is not None
    assert order(left) == ["acme", "cura"]
    assert rejected(left) == {"bolt": ("over_budget", "no room in the day budget of provider bolt")}
    assert left.candidates == tuple(
        each for each in before.ranking.candidates if each.offer.provider != "bolt"
    ), "the others are planned as they were"


def test_a_budget_of_the_only_provider_or_model_refuses_the_request() -> None:
    assert narrowing.narrowed(asked(ACME), over_budget("provider", "acme", left_nano=5)) is None
    assert narrowing.narrowed(asked(ACME, BOLT), over_budget("model", "small", left_nano=5)) is None


def test_a_budget_that_no_candidate_counts_in_changes_nothing_by_planning_again() -> None:
    assert narrowing.narrowed(asked(ACME), over_budget("provider", "bolt", left_nano=5)) is None


def test_a_budget_of_one_model_leaves_the_fallbacks_of_others() -> None:
    other = seller(2, "bolt", model="large", sku="bolt/large")
    before = asked(ACME, other, models=["small", "large"])

    left = narrowing.narrowed(before, over_budget("model", "small", left_nano=5))

    assert left is not None
    assert [each.offer.model for each in left.candidates] == ["large"]


def test_who_named_a_length_is_not_given_a_shorter_one() -> None:
    refused = over_budget("tenant", left_nano=300_000)

    assert narrowing.narrowed(asked(ACME, max_tokens=4_000), refused) is None
    assert (
        narrowing.narrowed(asked(ACME, max_tokens=4_000), over_minute(limit=900, left=900)) is None
    )


def test_who_named_none_gets_what_the_budget_has_left() -> None:
    # 120 tokens of prompt at most, at 100,000 pico-dollars; then 400,000 a token of answer.
    left_nano = nano_ceil(120 * 100_000 + 1_000 * 400_000)

    left = narrowing.narrowed(asked(ACME), over_budget("tenant", left_nano=left_nano))

    assert left is not None
    (candidate,) = left.candidates
    assert (candidate.max_output_tokens, candidate.output_bound) == (1_000, 1_000)
    assert candidate.cut_by == ceilings.BUDGET
    assert candidate.worst_pico == left_nano * PICO_PER_NANO


def test_a_budget_too_small_for_a_usual_answer_refuses_the_request() -> None:
    usual = 120 * 100_000 + OUTPUT_TOKENS_EXPECTED * 400_000

    enough = narrowing.narrowed(asked(ACME), over_budget("key", left_nano=nano_ceil(usual)))
    short = narrowing.narrowed(asked(ACME), over_budget("key", left_nano=nano_floor(usual) - 1))

    assert enough is not None
    assert enough.candidates[0].max_output_tokens == OUTPUT_TOKENS_EXPECTED
    assert short is None


def test_an_offer_that_answers_in_less_is_used_to_its_full_length_or_not_at_all() -> None:
    prompt_pico, token_pico = 120 * 400_000, 1_600_000

    whole = over_budget("key", left_nano=nano_ceil(prompt_pico + 50 * token_pico))
    less = over_budget("key", left_nano=nano_floor(prompt_pico + 49 * token_pico))

    left = narrowing.narrowed(asked(SHORT), whole)
    assert left is not None
    assert left.candidates[0].max_output_tokens == 50
    assert narrowing.narrowed(asked(SHORT), less) is None


def test_a_session_gets_whatever_it_has_left_once() -> None:
    left_nano = nano_ceil(120 * 100_000 + 3 * 400_000)
    refused = over_budget("session", "71:s", left_nano=left_nano, window="session")
    before = asked(ACME, BOLT)

    left = narrowing.narrowed(before, refused)

    assert left is not None
    assert order(left) == ["acme"], "the prompt alone is dearer at the other"
    assert left.candidates[0].max_output_tokens == 3
    assert left.candidates[0].cut_by == ceilings.SESSION_MAX_COST
    again = replace(before, ranking=left, candidates=left.candidates)
    assert narrowing.narrowed(again, refused) is None


def test_an_empty_session_refuses_the_request() -> None:
    refused = over_budget("session", "71:s", left_nano=0, window="session")

    assert narrowing.narrowed(asked(ACME), refused) is None


def test_a_minute_leaves_an_answer_of_what_it_has_left() -> None:
    left = narrowing.narrowed(asked(ACME), over_minute(limit=10_000, left=620))

    assert left is not None
    (candidate,) = left.candidates
    assert (candidate.input_bound, candidate.max_output_tokens) == (120, 500)
    assert (candidate.tokens_bound, candidate.cut_by) == (620, ceilings.RATE_LIMIT)


def test_a_minute_that_is_nearly_over_is_waited_for() -> None:
    """A request that fits into a whole minute is not cut to less than a usual answer."""
    assert narrowing.narrowed(asked(ACME), over_minute(limit=10_000, left=130)) is None


def test_a_request_that_is_more_than_a_minute_is_cut_to_a_whole_one() -> None:
    left = narrowing.narrowed(asked(ACME), over_minute(limit=1_000, left=130))

    assert left is not None
    assert left.candidates[0].tokens_bound == 1_000


def test_offers_that_can_take_more_than_the_whole_minute_give_way() -> None:
    before = asked(ACME, SHORT, max_tokens=4_000)
    bounds = {each.offer.provider: each.tokens_bound for each in before.ranking.candidates}
    assert bounds == {"acme": 4_120, "brevity": 170}

    left = narrowing.narrowed(before, over_minute(limit=bounds["brevity"], left=0))

    assert left is not None
    assert order(left) == ["brevity"]
    code, reason = rejected(left)["acme"]
    assert (code, reason) == (
        "over_rate_limit",
        f"may take {bounds['acme']:,} tokens of {bounds['brevity']:,} per minute",
    )


def smaller(now: Ranking, before: Ranking) -> bool:
    return (len(now.candidates), worst(now), tokens(now)) < (
        len(before.candidates),
        worst(before),
        tokens(before),
    )


def tokens(ranking: Ranking) -> int:
    return max(candidate.tokens_bound for candidate in ranking.candidates)


kinds = st.sampled_from(["tenant", "team", "key", "provider", "model", "session"])


@given(
    st.lists(st.tuples(kinds, st.integers(0, 2_000_000), st.booleans()), min_size=1, max_size=12),
    st.booleans(),
)
def test_each_narrowing_is_shorter_or_cheaper_so_that_planning_ends(
    refusals: list[tuple[str, int, bool]], names_a_length: bool
) -> None:
    named = {"max_tokens": 4_000} if names_a_length else {}
    now = asked(ACME, BOLT, CURA, **named)
    for kind, left, is_minute in refusals:
        scope_id = {"provider": "bolt", "model": "small"}.get(kind, "71")
        window = "session" if kind == "session" else "day"
        if is_minute:
            refused = over_minute(limit=left // 100, left=left // 200)
            is_refused = now.hold.tokens > refused.left_nano
        else:
            refused = over_budget(kind, scope_id, left_nano=left, window=window)
            is_refused = now.hold.nano > refused.left_nano
        narrower = narrowing.narrowed(now, refused) if is_refused else now.ranking
        if narrower is None:
            return
        assert smaller(narrower, now.ranking) or not is_refused
        now = replace(
            now,
            ranking=narrower,
            candidates=narrower.candidates,
            hold=admission.hold_of(narrower.candidates, now.request, PRINCIPAL),
        )


@given(st.integers(0, 10**9), st.sampled_from(["tenant", "team", "key", "session"]))
def test_a_cut_never_costs_more_than_what_was_left(left_nano: int, kind: str) -> None:
    window = "session" if kind == "session" else "month"
    left = narrowing.narrowed(
        asked(ACME, BOLT, CURA), over_budget(kind, left_nano=left_nano, window=window)
    )

    for candidate in () if left is None else left.candidates:
        assert candidate.worst_pico <= left_nano * PICO_PER_NANO
        assert candidate.worst_pico == dearest(candidate)
        assert candidate.max_output_tokens >= 1


def dearest(candidate: Candidate) -> int:
    return rating.worst_case(
        candidate.prices,
        input_bound=candidate.input_bound,
        output_bound=candidate.output_bound,
    )
