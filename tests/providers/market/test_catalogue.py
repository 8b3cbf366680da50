"""The seeded catalogue: complete, idempotent, and it leaves alone what people did."""

from datetime import UTC, datetime, timedelta

import pytest
from genai_prices.data import providers as published

from billing.kinds import ServiceTier
from billing.models import PriceVersion
from billing.prices import versions as prices
from providers.market import catalogue, credentials, offers
from providers.models import Model, Offer, Provider
from tests import listed

NOW = datetime(2026, 11, 20, tzinfo=UTC)
pytestmark = pytest.mark.django_db


def _counts() -> tuple[int, ...]:
    return tuple(model.objects.count() for model in (Provider, Model, Offer, PriceVersion))


def test_seeding_twice_changes_nothing() -> None:
    # given
    first = catalogue.seed(recorded_by="test", now=NOW)
    before = _counts()

    # when
    second = catalogue.seed(recorded_by="test", now=NOW)

    # then
    assert before == _counts()
    assert before[0] == len(published)
    assert first.offers == before[2] > 2_000
    assert (second.providers, second.models, second.offers) == (0, 0, 0)
    assert (second.prices, second.proposed) == (0, 0)


def test_prices_in_force_match_the_published_pages() -> None:
    # when
    catalogue.seed(recorded_by="test", now=NOW)

    # then
    (o3_before,) = listed.price_at("openai/o3", datetime(2025, 6, 1, tzinfo=UTC))
    o3_now = {p.service_tier: p for p in listed.price_at("openai/o3", NOW)}
    assert (o3_before.input_pico, o3_before.output_pico) == (10_000_000, 40_000_000)
    assert (o3_now[0].input_pico, o3_now[0].output_pico) == (2_000_000, 8_000_000)
    assert o3_now[ServiceTier.BATCH].output_pico == 4_000_000


def test_sellers_of_the_same_weights_share_one_model() -> None:
    # when
    catalogue.seed(recorded_by="test", now=NOW)

    # then
    model = Model.objects.get(slug="llama-3.3-70b-instruct")
    sellers = set(model.offers.values_list("provider__slug", flat=True))
    assert {"groq", "together", "aws", "cerebras", "openrouter"} <= sellers
    assert model.creator == "Meta"


def test_every_offer_says_whether_it_can_be_called() -> None:
    # given
    catalogue.seed(recorded_by="test", now=NOW)
    provider = Provider.objects.get(slug="groq")
    credentials.store(provider=provider, label="main", secret="gsk-test-secret")

    # when
    by_sku = {view.sku: view for view in offers.views(NOW)}

    # then
    groq = by_sku["groq/llama-3.3-70b-versatile"]
    assert groq.not_routable == ""
    assert groq.headers == {"authorization": "Bearer gsk-test-secret"}
    assert by_sku["openai/o3"].not_routable == offers.NO_CREDENTIAL
    assert by_sku["openai/o3"].headers == {}
    assert by_sku["aws/meta.llama3-3-70b-instruct-v1:0"].not_routable == offers.NO_WIRE
    assert by_sku["openai/text-embedding-3-small"].not_routable == offers.NOT_CHAT


def test_what_an_operator_did_is_left_alone() -> None:
    # given
    catalogue.seed(recorded_by="test", now=NOW)
    offer = Offer.objects.get(sku="openai/o3")
    offers.set_enabled(offer=offer, enabled=False, actor="op", now=NOW)
    prices.publish(
        sku_code="openai/gpt-5",
        input_pico=1,
        cache_read_pico=1,
        cache_write_5m_pico=1,
        cache_write_1h_pico=1,
        output_pico=2,
        reasoning_pico=2,
        valid_from=NOW - timedelta(days=1),
        source="operator",
        recorded_by="test",
    )

    # when
    catalogue.seed(recorded_by="test", now=NOW)

    # then
    offer.refresh_from_db()
    assert offer.state == Offer.State.DISABLED
    assert listed.price_at("openai/gpt-5", NOW)[0].output_pico == 2


def test_a_listing_without_a_token_price_is_listed_and_says_so() -> None:
    # when
    done = catalogue.seed(recorded_by="test", now=NOW)

    # then
    assert len(done.unpriced) > 100
    assert Offer.objects.filter(sku__in=done.unpriced).count() == len(done.unpriced)
    assert not listed.price_at(done.unpriced[0], NOW)
