"""Who is asked, in which order, and why not the others: golden rankings."""

from dataclasses import dataclass
from typing import Any

import pytest

from billing.rating import Price
from gateway.routing import names, router
from gateway.routing.breaker import Breaker
from gateway.routing.policies import PolicyView
from gateway.routing.router import Limits, Ranking
from providers.chat import ChatRequest, OfferView
from tests.factories import anthropic_request, offer_view, openai_request, price


@dataclass
class Measured:
    ttft_ms_p50: float | None
    output_tps_p50: float | None
    sample: int = 100


def seller(number: int, provider: str, **changed: Any) -> OfferView:
    """An offer of `small` at $0.10·n in and $0.40·n out per million tokens."""
    sku = changed.pop("sku", f"{provider}/small")
    prices = changed.pop(
        "prices",
        (price(sku=sku, input_pico=100_000 * number, output_pico=400_000 * number),),
    )
    return offer_view(
        id=number,
        sku=sku,
        provider=provider,
        provider_name=provider.title(),
        prices=prices,
        **changed,
    )


ACME, BOLT, CURA = seller(1, "acme"), seller(2, "bolt"), seller(3, "cura")
OWN = seller(9, "in-house", sku="in-house/small/ngram", in_house=True)


def rank(
    *offers: OfferView,
    request: ChatRequest | None = None,
    policy: PolicyView | None = None,
    limits: Limits | None = None,
    speeds: dict[int, Measured] | None = None,
    breaker: Breaker | None = None,
) -> Ranking:
    by_model: dict[str, tuple[OfferView, ...]] = {}
    for offer in offers:
        by_model[offer.model] = (*by_model.get(offer.model, ()), offer)
    return router.rank(
        request or openai_request(),
        offers_by_model=names.OffersByModel(by_model),
        policy=policy or PolicyView(),
        limits=limits or Limits(),
        speeds=speeds or {},
        breaker=breaker or Breaker(),
        now_ms=0,
    )


def order(ranking: Ranking) -> list[str]:
    return [candidate.offer.provider for candidate in ranking.candidates]


def rejected(ranking: Ranking) -> dict[str, tuple[str, str]]:
    return {r.provider: (r.code, r.reason) for r in ranking.rejections}


def test_cheapest_first_with_exact_costs() -> None:
    # given a prompt of 40 bytes (10 tokens expected, 120 at most) and 100 tokens of output
    ranking = rank(CURA, ACME, BOLT, request=openai_request(max_tokens=100))

    # then
    assert order(ranking) == ["acme", "bolt", "cura"]
    first = ranking.candidates[0]
    assert first.expected_pico == 10 * 100_000 + 100 * 400_000
    assert first.worst_pico == 120 * 100_000 + 100 * 400_000
    assert (first.input_bound, first.output_bound, first.max_output_tokens) == (120, 100, 100)
    assert first.why == "costs about $0.000041"


def test_without_a_limit_256_tokens_of_output_are_expected_and_the_cap_is_bounded() -> None:
    first = rank(ACME, limits=Limits(output_cap=1_000)).candidates[0]

    assert first.expected_pico == 10 * 100_000 + 256 * 400_000
    assert first.worst_pico == 120 * 100_000 + 1_000 * 400_000


def test_several_choices_are_expected_and_bounded_together() -> None:
    first = rank(ACME, request=openai_request(n=4, max_tokens=10)).candidates[0]

    assert first.expected_pico == 10 * 100_000 + 40 * 400_000
    assert first.worst_pico == 120 * 100_000 + 40 * 400_000


def test_equal_offers_are_ordered_by_sku() -> None:
    twins = [
        offer_view(id=at, sku=f"{name}/small", provider=name)
        for at, name in enumerate(["zeta", "beta"])
    ]

    assert order(rank(*twins)) == ["beta", "zeta"]


def test_fastest_orders_by_the_time_of_this_answer() -> None:
    # given acme is quick to begin and slow to go on
    speeds = {1: Measured(100, 20), 2: Measured(400, 200)}

    short = rank(
        ACME,
        BOLT,
        policy=PolicyView(kind="fastest"),
        speeds=speeds,
        request=openai_request(max_tokens=4),
    )
    long = rank(ACME, BOLT, policy=PolicyView(kind="fastest"), speeds=speeds)

    assert order(short) == ["acme", "bolt"]
    assert order(long) == ["bolt", "acme"]
    assert long.candidates[0].why == (
        "about 1,680 ms for 256 tokens (first token 400 ms, 200.0 tokens/s)"
    )


def test_fastest_puts_what_was_not_measured_enough_last_by_cost() -> None:
    speeds = {3: Measured(5_000, 1), 2: Measured(1, 1_000, sample=4)}

    ranking = rank(ACME, BOLT, CURA, policy=PolicyView(kind="fastest"), speeds=speeds)

    assert order(ranking) == ["cura", "acme", "bolt"]
    assert ranking.candidates[2].why == "speed not known yet (4 of 5 samples)"


def test_in_house_first_spills_out_by_cost() -> None:
    ranking = rank(BOLT, OWN, ACME, policy=PolicyView(kind="in_house_first"))

    assert order(ranking) == ["in-house", "acme", "bolt"]


def test_pinned_keeps_its_order_and_turns_others_away() -> None:
    policy = PolicyView(kind="pinned", pinned_skus=("cura/small", "acme/small"))

    ranking = rank(ACME, BOLT, CURA, policy=policy)

    assert order(ranking) == ["cura", "acme"]
    assert rejected(ranking)["bolt"][0] == "not_pinned"


def test_a_pin_is_not_lifted_by_the_caller_s_sort() -> None:
    policy = PolicyView(kind="pinned", pinned_skus=("cura/small", "acme/small"))

    ranking = rank(ACME, CURA, policy=policy, request=openai_request(model="small:floor"))

    assert order(ranking) == ["cura", "acme"]


def test_demoted_offers_come_last_whatever_their_price() -> None:
    ranking = rank(seller(1, "acme", demoted=True), BOLT)

    assert order(ranking) == ["bolt", "acme"]
    assert ranking.candidates[1].why.startswith("last: its heartbeat is overdue; costs about")


def test_what_cannot_be_called_says_why() -> None:
    ranking = rank(seller(1, "acme", not_routable="no credential"), BOLT)

    assert order(ranking) == ["bolt"]
    assert rejected(ranking) == {"acme": ("not_routable", "no credential")}


def test_an_open_breaker_is_a_reason_and_a_closed_one_is_not() -> None:
    breaker = Breaker()
    breaker.failure(ACME.access, 0, 0, reason="upstream_timeout", retry_after_ms=7_000)

    ranking = rank(ACME, BOLT, breaker=breaker)

    assert order(ranking) == ["bolt"]
    assert rejected(ranking)["acme"] == (
        "breaker_open",
        "after upstream_timeout: closed to requests for another 7 s",
    )


def test_a_prompt_that_cannot_fit_is_turned_away_with_both_lengths() -> None:
    # given 49,182 bytes of prompt and contexts of 8,192 and 32,768 tokens
    request = openai_request(messages=[{"role": "user", "content": "x" * 49_152}])

    ranking = rank(ACME, seller(2, "bolt", context_length=32_768), request=request)

    assert order(ranking) == ["bolt"]
    assert rejected(ranking)["acme"] == (
        "context_too_short",
        "a prompt of at least 8,197 tokens does not fit into a context of 8,192",
    )


def test_the_allow_list_of_the_tenant_is_a_hard_filter() -> None:
    ranking = rank(ACME, BOLT, policy=PolicyView(providers_allowed=frozenset({"bolt"})))

    assert order(ranking) == ["bolt"]
    assert rejected(ranking)["acme"] == ("provider_not_allowed", "acme is not on the allow-list")


def test_the_key_s_models_are_a_hard_filter() -> None:
    ranking = rank(ACME, limits=Limits(models=frozenset({"large"})))

    assert rejected(ranking)["acme"] == ("model_not_allowed", "the key may not use small")


def test_price_ceilings_are_hard_and_the_lower_one_counts() -> None:
    policy = PolicyView(max_input_pico=250_000)
    request = openai_request(provider={"max_price": {"completion": "0.80", "prompt": 0.15}})

    ranking = rank(ACME, BOLT, CURA, policy=policy, request=request)

    assert order(ranking) == ["acme"]
    assert rejected(ranking)["bolt"] == (
        "over_price_ceiling",
        "input at $0.2 per million tokens is above the ceiling of $0.15",
    )


def test_a_price_at_the_ceiling_fits() -> None:
    assert order(rank(ACME, policy=PolicyView(max_output_pico=400_000))) == ["acme"]
    assert order(rank(ACME, policy=PolicyView(max_output_pico=399_999))) == []


def test_no_price_for_the_asked_tier_is_a_reason() -> None:
    ranking = rank(ACME, request=openai_request(service_tier="flex"))

    assert rejected(ranking)["acme"] == (
        "no_price",
        "no price in force for service tier flex",
    )


def test_only_the_asked_tier_is_pinned() -> None:
    flex = price(version=2, service_tier=1, input_pico=50_000, output_pico=200_000)
    offer = seller(1, "acme", prices=(price(), flex))

    ranking = rank(offer, request=openai_request(service_tier="flex"))

    assert ranking.candidates[0].prices == (flex,)


def test_a_priority_request_may_be_served_and_billed_as_a_plain_one() -> None:
    fast = price(version=2, service_tier=2, input_pico=200_000, output_pico=900_000)
    offer = seller(1, "acme", prices=(price(), price(version=3, service_tier=1), fast))

    first = rank(offer, request=openai_request(service_tier="priority", max_tokens=10)).candidates[
        0
    ]

    assert [p.version for p in first.prices] == [1, 2]
    assert first.expected_pico == 10 * 200_000 + 10 * 900_000
    assert first.worst_pico == 120 * 200_000 + 10 * 900_000


def test_the_worst_case_takes_the_dearest_context_tier_in_reach() -> None:
    dear = price(version=2, context_over=100, input_pico=200_000, output_pico=900_000)
    prices: tuple[Price, ...] = (price(), dear)

    first = rank(
        seller(1, "acme", prices=prices), request=openai_request(max_tokens=10)
    ).candidates[0]

    assert first.prices == prices
    assert first.expected_pico == 10 * 100_000 + 10 * 400_000
    assert first.worst_pico == 120 * 200_000 + 10 * 900_000


def test_tools_need_an_offer_that_can_or_one_that_does_not_say() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    offers = [
        seller(1, "acme", capabilities=frozenset({"chat", "text_only"})),
        seller(2, "bolt", capabilities=frozenset({"chat", "tools"})),
        seller(3, "cura", capabilities=frozenset({"chat"})),
    ]

    ranking = rank(*offers, request=openai_request(tools=tools))

    assert order(ranking) == ["bolt", "cura"]
    assert rejected(ranking)["acme"] == ("capability", "does not support tools")


def test_what_the_other_dialect_cannot_say_is_not_sent_there() -> None:
    ranking = rank(ACME, seller(2, "bolt", wire="anthropic"), request=openai_request(n=2))

    assert order(ranking) == ["acme"]
    assert rejected(ranking)["bolt"] == ("dialect", "n cannot be said in its API")


def test_who_would_leave_something_out_is_none_where_all_parameters_are_required() -> None:
    bolt = seller(2, "bolt", wire="anthropic")
    said = {"seed": 7, "enable_thinking": True}
    own = seller(3, "cura", in_house=True)
    asked = {"provider": {"require_parameters": True}}

    ranking = rank(ACME, bolt, own, request=openai_request(**said, **asked))

    assert order(ranking) == ["acme"]
    assert rejected(ranking) == {
        "bolt": ("parameters", "it would not be sent enable_thinking, seed"),
        "cura": ("parameters", "it would not be sent enable_thinking"),
    }
    assert len(order(rank(ACME, bolt, own, request=openai_request(**said)))) == 3


def test_tools_that_the_vendor_runs_have_no_price_and_are_refused() -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]

    ranking = rank(seller(2, "bolt", wire="anthropic"), request=anthropic_request(tools=tools))

    assert rejected(ranking)["bolt"] == (
        "no_price",
        "tools that the vendor runs are billed by the call, unpriced",
    )


@pytest.mark.parametrize(
    ("request_", "eligible"),
    [
        (anthropic_request(speed="standard", inference_geo=None), True),
        (anthropic_request(speed="fast"), False),
        (anthropic_request(inference_geo="us"), False),
        (openai_request(search_parameters=None, enable_search=False), True),
        (openai_request(search_parameters={"mode": "on"}), False),
        (openai_request(enable_search=True), False),
    ],
)
def test_what_a_vendor_charges_extra_for_is_refused(request_: ChatRequest, eligible: bool) -> None:
    ranking = rank(ACME, request=request_)

    assert bool(ranking.candidates) is eligible
    if not eligible:
        assert rejected(ranking)["acme"][0] == "no_price"


def test_a_tier_that_a_dialect_does_not_know_is_not_sold_in_it() -> None:
    flex = (price(), price(version=2, service_tier=1, input_pico=1))
    seller_ = seller(2, "bolt", wire="anthropic", prices=flex)

    ranking = rank(seller_, request=openai_request(service_tier="flex"))

    assert rejected(ranking)["bolt"][0] == "no_price"


def test_batch_in_a_single_call_is_sold_by_machines_of_the_house_only() -> None:
    prices = (price(), price(version=2, service_tier=3, input_pico=1, output_pico=2))
    vendor = seller(1, "acme", prices=prices)
    house = seller(2, "bolt", prices=prices, in_house=True)

    ranking = rank(vendor, house, request=openai_request(service_tier="batch"))

    assert [candidate.prices for candidate in ranking.candidates] == [prices[1:]]
    assert rejected(ranking)["acme"][0] == "no_price"


def test_audio_needs_a_price_for_audio() -> None:
    request = openai_request(modalities=["text", "audio"])
    priced = seller(2, "bolt", prices=(price(output_audio_pico=1),))

    ranking = rank(ACME, priced, request=request)

    assert order(ranking) == ["bolt"]
    assert rejected(ranking)["acme"] == ("no_price", "no price in force for audio output")


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({"order": ["cura", "bolt"]}, ["cura", "bolt", "acme"]),
        ({"order": ["cura"], "allow_fallbacks": False}, ["cura"]),
        ({"allow_fallbacks": False}, ["acme"]),
        ({"only": ["bolt", "cura"]}, ["bolt", "cura"]),
        ({"only": ["Bolt"]}, ["bolt"]),
        ({"ignore": ["acme"]}, ["bolt", "cura"]),
        ({"only": ["acme/small"]}, ["acme"]),
        ({"only": ["nobody"]}, []),
    ],
)
def test_openrouter_s_provider_fields(provider: dict[str, Any], expected: list[str]) -> None:
    ranking = rank(ACME, BOLT, CURA, request=openai_request(provider=provider))

    assert order(ranking) == expected
    assert len(ranking.candidates) + len(ranking.rejections) == 3


def test_no_fallbacks_in_the_policy_leaves_one_candidate_and_names_the_rest() -> None:
    ranking = rank(ACME, BOLT, policy=PolicyView(allow_fallbacks=False))

    assert order(ranking) == ["acme"]
    assert rejected(ranking)["bolt"] == (
        "fallbacks_off",
        "eligible, but only the first is tried",
    )


@pytest.mark.parametrize(
    ("suffix", "policy"), [(":floor", "cheapest"), (":nitro", "fastest"), ("", "in_house_first")]
)
def test_suffixes_choose_the_policy(suffix: str, policy: str) -> None:
    ranking = rank(
        ACME,
        policy=PolicyView(kind="in_house_first"),
        request=openai_request(model=f"small{suffix}"),
    )

    assert ranking.policy == policy
    assert order(ranking) == ["acme"]


def test_fallback_models_come_after_every_offer_of_the_first() -> None:
    cheap = seller(4, "dime", model="tiny", sku="dime/tiny", prices=(price(input_pico=1),))

    ranking = rank(BOLT, cheap, request=openai_request(models=["tiny", "small"]))

    assert order(ranking) == ["bolt", "dime"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", ["acme", "in-house"]),
        ("acme/small", ["acme"]),
        ("in-house/small", ["in-house"]),
        ("in-house/small/ngram", ["in-house"]),
    ],
)
def test_a_name_is_a_model_or_an_offer(name: str, expected: list[str]) -> None:
    assert order(rank(ACME, OWN, request=openai_request(model=name))) == expected


@pytest.mark.parametrize("name", ["smal", "bolt/small", "acme/", "/small", "acme//small"])
def test_any_other_name_is_unknown(name: str) -> None:
    ranking = rank(ACME, OWN, request=openai_request(model=name))

    assert not ranking.known
    assert ranking.candidates == ranking.rejections == ()


def test_the_nearest_names_are_suggested() -> None:
    known = ["smollm2-135m-instruct", "gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5"]

    assert names.nearest("smollm2-135m-instrukt", known) == ("smollm2-135m-instruct",)
    assert names.nearest("gpt4o", known)[0] == "gpt-4o"
    assert names.nearest("zzzzzz", known) == ()


def test_the_same_arguments_give_the_same_ranking() -> None:
    assert rank(CURA, BOLT, ACME) == rank(CURA, BOLT, ACME)
