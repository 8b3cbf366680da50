"""A newer history changes nothing by itself: proposed, decided by a person, made once."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from billing.errors import PriceRefused
from billing.models import AuditEntry, PriceProposal, PriceVersion
from billing.prices import imports as price_import
from billing.prices import proposals as price_proposals
from billing.prices import versions as prices
from billing.prices.imports import DatedRates
from billing.prices.proposals import Proposed
from billing.rates import ALL_DAY, Rates, Window
from tests import listed
from tests.billing.prices.test_prices import publish

pytestmark = pytest.mark.django_db
NOW = timezone.now()
LONG_AGO = NOW - timedelta(days=90)
NEXT_WEEK = NOW + timedelta(days=7)
SKU, OTHER = "acme/swift-1", "acme/swift-2"
SOURCE, NEWER = "genai-prices 0.2.3", "genai-prices 0.3.0"


def dated(
    output_pico: int,
    *,
    since: datetime = LONG_AGO,
    until: datetime | None = None,
    tier: int = 0,
    window: Window = ALL_DAY,
) -> DatedRates:
    rates = Rates(
        input_pico=100,
        cache_read_pico=10,
        cache_write_5m_pico=100,
        cache_write_1h_pico=100,
        output_pico=output_pico,
        reasoning_pico=output_pico,
    )
    return DatedRates(tier, 0, since, until, rates, window)


@pytest.fixture(autouse=True)
def imported() -> None:
    """Version 0.2.3: one sku at 400, another at 900 with a flex tier."""
    history = {SKU: [dated(400)], OTHER: [dated(900), dated(450, tier=1)]}
    price_import.import_history(history, source=SOURCE, recorded_by="seed")


SAME = {OTHER: [dated(900), dated(450, tier=1)]}


def propose(history: dict[str, list[DatedRates]], *, source: str = NEWER) -> Proposed:
    return price_proposals.propose({**SAME, **history}, source=source, now=NOW)


def pending() -> list[tuple[Any, ...]]:
    rows = PriceProposal.objects.filter(state="pending").order_by("sku", "service_tier", "pk")
    return [(r.sku, r.kind, r.rates and r.rates["output_pico"], r.change_ppm) for r in rows]


def decide(action: str) -> list[str]:
    ids = list(PriceProposal.objects.filter(state="pending").values_list("pk", flat=True))
    decisions = getattr(price_proposals, action)(ids, actor="op", now=NOW)
    return [decision.refusal for decision in decisions]


def output(sku: str, when: datetime = NOW) -> list[int]:
    return [price.output_pico for price in listed.price_at(sku, when)]


def test_the_same_history_again_proposes_nothing() -> None:
    assert propose({SKU: [dated(400)]}) == Proposed(made=0, kept=0, superseded=0)


def test_a_difference_is_proposed_and_changes_nothing() -> None:
    # when
    propose({SKU: [dated(400, until=NOW - timedelta(days=1)), dated(500, since=LONG_AGO)]})
    propose({SKU: [dated(500)], "acme/new": [dated(7)]})
    # then
    assert pending() == [("acme/new", "new", 7, None), (SKU, "change", 500, 250_000)]
    assert (output(SKU), output("acme/new")) == ([400], [])
    assert PriceVersion.objects.count() == 3


def test_an_approved_price_holds_from_its_approval_and_says_who() -> None:
    # given
    propose({SKU: [dated(500)], "acme/new": [dated(7)]})
    # when
    refusals = decide("approve")
    # then
    assert refusals == ["", ""]
    assert (output(SKU), output("acme/new")) == ([500], [7])
    assert output(SKU, NOW - timedelta(seconds=1)) == [400]
    version = prices.history(SKU)[-1]
    assert (version.recorded_by, version.source) == ("op", NEWER)
    row = PriceProposal.objects.get(sku=SKU)
    assert (row.state, row.decided_by, row.decided_at) == ("approved", "op", NOW)
    assert AuditEntry.objects.get(subject=SKU).action == "price_proposal.approved"


def test_a_price_of_the_future_keeps_its_day() -> None:
    # given
    propose({SKU: [dated(400, until=NEXT_WEEK), dated(300, since=NEXT_WEEK)]})
    # when
    decide("approve")
    # then
    assert (output(SKU), output(SKU, NEXT_WEEK)) == ([400], [300])


def test_a_slot_that_is_listed_no_more_is_proposed_to_end() -> None:
    # given
    price_proposals.propose({SKU: [dated(400)], OTHER: [dated(900)]}, source=NEWER, now=NOW)
    assert pending() == [(OTHER, "end", None, None)]
    # when
    decide("approve")
    # then
    assert output(OTHER) == [900]


def test_hours_are_a_slot_of_their_own() -> None:
    # given
    night = Window(1_320, 360)
    propose({SKU: [dated(400), dated(200, window=night)]})
    # when
    decide("approve")
    # then
    assert PriceVersion.objects.get(from_minute=1_320).output_pico == 200


def test_a_newer_import_replaces_what_still_waits() -> None:
    # given
    propose({SKU: [dated(500)]})
    # when / then
    assert propose({SKU: [dated(500)]}) == Proposed(made=0, kept=1, superseded=0)
    assert propose({SKU: [dated(600)]}) == Proposed(made=1, kept=0, superseded=1)
    assert propose({SKU: [dated(400)]}) == Proposed(made=0, kept=0, superseded=1)
    assert pending() == []


def test_what_was_rejected_is_not_proposed_again_but_another_price_is() -> None:
    # given
    propose({SKU: [dated(500)]})
    assert decide("reject") == [""]
    # when / then
    assert propose({SKU: [dated(500)]}).made == 0
    assert propose({SKU: [dated(600)]}).made == 1
    assert output(SKU) == [400]


def test_a_price_that_changed_meanwhile_is_not_overwritten() -> None:
    # given
    propose({SKU: [dated(500)]})
    publish(NOW - timedelta(hours=1), sku_code=SKU, output_pico=450, source="operator")
    # when
    (refusal,) = decide("approve")
    # then
    assert "changed since it was proposed" in refusal
    assert output(SKU) == [450]
    assert PriceProposal.objects.get().state == "pending"


def test_a_sku_priced_by_hand_is_left_alone() -> None:
    # given
    publish(NOW - timedelta(hours=1), sku_code=SKU, output_pico=450, source="operator")
    # when / then
    assert propose({SKU: [dated(500)]}).made == 0


def test_a_decision_is_made_once_and_about_a_bounded_number() -> None:
    # given
    propose({SKU: [dated(500)]})
    (row,) = PriceProposal.objects.all()
    decide("approve")
    versions = PriceVersion.objects.count()
    # when
    (again,) = price_proposals.approve([row.pk], actor="op", now=NOW)
    (turned,) = price_proposals.reject([row.pk], actor="op", now=NOW)
    # then
    assert "approved already" in again.refusal
    assert "approved already" in turned.refusal
    assert PriceVersion.objects.count() == versions
    for ids in ([], list(range(501))):
        with pytest.raises(PriceRefused, match="1 to 500"):
            price_proposals.approve(ids, actor="op", now=NOW)
