"""Every name that a page or a list shows can be asked for, and means what it shows."""

from datetime import UTC, datetime

import msgspec
import pytest

from gateway.dataplane.snapshots import loader as snapshot_loader
from gateway.dataplane.surfaces import anthropic_messages, openai_chat
from gateway.routing import router
from gateway.routing.breaker import Breaker
from gateway.routing.names import OffersByModel
from gateway.routing.policies import PolicyView
from gateway.routing.router import Limits
from providers.chat import ChatRequest
from providers.machines import pools
from providers.machines.pools import Facts
from providers.market import catalogue
from providers.models import Offer, Provider
from tests.factories import anthropic_body, offer_view, openai_body
from tests.providers.machines.test_pool_listing import TERMS, Server
from tests.providers.made_offers import NOW as FAR

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def named(request: ChatRequest, offers: OffersByModel) -> set[str]:
    """The skus that a request comes to, whether they may serve it or not."""
    ranking = router.rank(
        request,
        offers_by_model=offers,
        policy=PolicyView(),
        limits=Limits(),
        speeds={},
        breaker=Breaker(),
        now_ms=int(NOW.timestamp() * 1000),
    )
    return {each.offer.sku for each in ranking.candidates} | {
        each.sku for each in ranking.rejections
    }


@pytest.mark.django_db
def test_every_sku_and_model_of_the_whole_catalogue_can_be_named() -> None:
    # given every offer of the catalogue, and a server with names as people give them
    catalogue.seed(recorded_by="test", now=NOW)
    ids = ["/models/Fox 7B", "owl:8b", "Acme/Owl-FP8", "a/b/c", "~x", "gpt-4o"]
    server = Server(v1__models={"data": [{"id": name} for name in ids]})
    pools.attach(
        name="lab",
        base_url=server.fake.url,
        bearer="",
        terms=TERMS,
        recorded_by="test",
        now=FAR,
        facts=Facts(),
    )
    server.fake.stop()

    # when
    offers = snapshot_loader.offers_by_model(NOW)

    # then each sku means that offer alone, in both dialects, and each model all of its offers
    wrong = []
    models: dict[str, set[str]] = {}
    for offer in Offer.objects.select_related("model"):
        models.setdefault(offer.model.slug, set()).add(offer.sku)
        for request in (
            openai_chat.parse(openai_body(model=offer.sku), {}),
            anthropic_messages.parse(anthropic_body(model=offer.sku), {}),
        ):
            if named(request, offers) != {offer.sku}:
                wrong.append(offer.sku)
    for slug, skus in models.items():
        if named(openai_chat.parse(openai_body(model=slug), {}), offers) != skus:
            wrong.append(slug)
    assert wrong == []
    assert len(models) > 500
    assert Provider.objects.filter(slug="pool-lab").exists()


def test_an_offers_own_name_comes_before_one_that_is_put_together() -> None:
    # given an offer that is called as another one's seller and model
    plain = offer_view(id=1, sku="acme/small", model="small-old")
    new = offer_view(id=2, sku="acme/small-v2", model="small")
    offers = OffersByModel({"small-old": (plain,), "small": (new,)})

    assert offers.named("acme/small") == (plain,)
    assert offers.named("small") == offers.named("acme/small-v2") == (new,)
    assert offers.named("acme/small-old") == (plain,)
    assert offers.named("acme") == offers.named("acme/") == offers.named("") == ()


@pytest.mark.parametrize("suffix", [":floor", ":nitro"])
def test_a_suffix_asks_for_an_order_also_behind_an_offers_name(suffix: str) -> None:
    offer = offer_view(sku="pool-lab//models/fox 7b:q4", model="fox-7b-q4")
    request = openai_chat.parse(openai_body(model=f"{offer.sku}{suffix}"), {})

    assert named(request, OffersByModel({"fox-7b-q4": (offer,)})) == {offer.sku}
    assert msgspec.json.decode(request.body)["model"].endswith(suffix)
