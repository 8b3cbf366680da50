"""The price history as people read it: whose line is whose."""

from datetime import timedelta

import pytest

from gateway.console.board import price_steps
from providers.models import Provider
from tests.providers.made_offers import NOW, make_offer, publish


@pytest.mark.django_db(transaction=True)
def test_two_offers_of_our_own_are_told_apart_and_an_outside_seller_by_name() -> None:
    # given
    for sku in ("house/small/plain-int8", "house/small/ngram-int8", "acme/small"):
        make_offer(sku)
        publish(sku, ("1", "1", "4"), since=NOW - timedelta(days=3))
    Provider.objects.filter(slug="house").update(kind=Provider.Kind.IN_HOUSE)
    # when
    steps = price_steps.read("small", since=NOW - timedelta(days=9), now=NOW)
    # then
    names = ["Acme", "House ngram-int8", "House plain-int8"]
    assert sorted(series.name for series in steps.all) == names
    assert sorted(line["name"] for line in steps.drawn) == names
