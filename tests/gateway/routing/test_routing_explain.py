"""What a caller, the console and the record are told of a decision."""

import msgspec
import pytest

from gateway.routing import explain, router
from gateway.routing.breaker import Breaker
from gateway.routing.explain import AttemptNote
from gateway.routing.names import OffersByModel
from gateway.routing.policies import PolicyView
from gateway.routing.router import Limits, Ranking
from providers.chat import OfferView
from tests.factories import offer_view, openai_request


def ranking_of(*offers: OfferView, policy: PolicyView | None = None) -> Ranking:
    return router.rank(
        openai_request(max_tokens=100),
        offers_by_model=OffersByModel({"small": offers}),
        policy=policy or PolicyView(),
        limits=Limits(),
        speeds={},
        breaker=Breaker(),
        now_ms=0,
    )


def test_an_explanation_is_exact_and_complete() -> None:
    closed = offer_view(id=2, sku="bolt/small", provider="bolt", not_routable="no credential")

    said = explain.explanation(
        ranking_of(offer_view(), closed),
        attempts=[AttemptNote("acme/small", "upstream_error", "no connection")],
    )

    assert said == {
        "model": "small",
        "policy": "cheapest",
        "expected_tokens": {"input": 10, "output": 100},
        "candidates": [
            {
                "rank": 1,
                "offer": "acme/small",
                "provider": "acme",
                "expected_usd": "0.000041",
                "greatest_usd": "0.000052",
                "score": 41_000_000.0,
                "why": "costs about $0.000041",
            }
        ],
        "rejections": [
            {
                "offer": "bolt/small",
                "provider": "bolt",
                "code": "not_routable",
                "reason": "no credential",
            }
        ],
        "attempts": [
            {"offer": "acme/small", "outcome": "upstream_error", "reason": "no connection"}
        ],
    }


def test_long_lists_are_cut_and_say_so() -> None:
    offers = [
        offer_view(id=i, sku=f"p{i:02}/small", not_routable="off" if i % 2 else "")
        for i in range(60)
    ]

    said = explain.explanation(ranking_of(*offers))

    assert len(said["candidates"]) == len(said["rejections"]) == 20
    assert said["left_out"] == 20


def test_an_unmeasured_speed_is_null_not_infinity() -> None:
    said = explain.explanation(ranking_of(offer_view(), policy=PolicyView(kind="fastest")))

    assert said["candidates"][0]["score"] is None
    assert msgspec.json.decode(msgspec.json.encode(said)) == said


@pytest.mark.parametrize("kind", ["cheapest", "in_house_first", "pinned", "lowest_ttft"])
def test_what_a_record_keeps_tells_the_same(kind: str) -> None:
    # given two that may serve, one of them demoted and limited, and two that may not
    offers = (
        offer_view(),
        offer_view(id=2, sku="bolt/small", provider="bolt", demoted=True, max_output_tokens=50),
        offer_view(id=3, sku="crow/small", provider="crow", not_routable="no credential"),
        offer_view(id=4, sku="dove/small", provider="dove", not_routable="no credential"),
    )
    pinned = tuple(offer.sku for offer in offers) if kind == "pinned" else ()
    ranking = ranking_of(*offers, policy=PolicyView(kind=kind, pinned_skus=pinned))

    # when
    record = msgspec.json.decode(msgspec.json.encode(explain.kept(ranking)))

    # then
    said, told = explain.explanation(ranking), explain.told(record, ranking.policy)
    if kind == "lowest_ttft":  # without how many samples there were
        for row in said["candidates"]:
            row["why"] = row["why"].partition(" (0 of")[0]
    assert told == said


def test_a_record_of_many_offers_is_small() -> None:
    offers = [
        offer_view(id=i, sku=f"p{i:02}/small", not_routable="no credential" if i % 2 else "")
        for i in range(60)
    ]

    record = explain.kept(ranking_of(*offers))

    assert len(record["taken"]) == 10
    assert record["left_out"] == 40
    assert len(msgspec.json.encode(record)) < 700


def test_a_record_of_before_is_told_as_it_is() -> None:
    said = explain.explanation(ranking_of(offer_view()))

    assert explain.told(said, "cheapest") == said
