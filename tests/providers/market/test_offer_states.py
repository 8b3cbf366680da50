"""Who may move an offer where: checks never overrule an operator."""

import pytest

from providers.market import offers
from providers.models import Offer
from tests.providers.made_offers import NOW, make_offer

pytestmark = pytest.mark.django_db


def test_an_operators_switch_holds_until_it_is_switched_back() -> None:
    # given
    offer = make_offer()

    # when
    offers.set_enabled(offer=offer, enabled=False, actor="op", now=NOW)
    moved = offers.set_state(offer_id=offer.pk, state=Offer.State.LIVE, reason="", now=NOW)
    while_off = Offer.objects.get()
    offers.set_enabled(offer=offer, enabled=True, actor="op", now=NOW)

    # then
    assert not moved
    assert (while_off.state, while_off.state_reason) == (Offer.State.DISABLED, "switched off by op")
    assert Offer.objects.get().state == Offer.State.LIVE


def test_moving_to_where_an_offer_is_says_so() -> None:
    # given
    offer = make_offer()

    # then
    assert not offers.set_state(offer_id=offer.pk, state="live", reason="", now=NOW)
    assert offers.set_state(offer_id=offer.pk, state="demoted", reason="silent", now=NOW)
    assert Offer.objects.get().state_changed_at == NOW
