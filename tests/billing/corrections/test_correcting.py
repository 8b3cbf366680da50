"""Correcting a period's price: previewed, posted once as credit notes, nothing rewritten."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from billing.corrections import rerating
from billing.corrections.rerating import Correction, Difference
from billing.errors import PriceRefused
from billing.models import (
    Adjustment,
    AuditEntry,
    CreditGrant,
    Entry,
    PriceList,
    PriceVersion,
    ReRating,
    UsageEvent,
)
from billing.operations import quarantine
from billing.prices import lists as price_lists
from billing.prices import versions as prices
from billing.prices.versions import Slot
from billing.rates import Rates
from tests.billing import desk as desks
from tests.billing.open_books import Books

NOON = desks.at(desks.NOON_MS)
SKU = "acme/swift-1"
HALF = desks.OUTPUT_PICO // 2
# 100 tokens in and 10 out: 280,000,000 pico-dollars at the wrong price, 240,000,000 at the right.
PAID, RIGHT = 280_000_000, 240_000_000


def rates(output_pico: int = HALF, **changes: Any) -> Rates:
    facts: dict[str, Any] = {
        "input_pico": desks.INPUT_PICO,
        "cache_read_pico": desks.INPUT_PICO // 10,
        "cache_write_5m_pico": desks.INPUT_PICO,
        "cache_write_1h_pico": desks.INPUT_PICO,
        "output_pico": output_pico,
        "reasoning_pico": output_pico,
    }
    return Rates(**{**facts, **changes})


def correction(**changes: Any) -> Correction:
    facts: dict[str, Any] = {
        "sku": SKU,
        "slot": Slot(),
        "since": NOON - timedelta(hours=1),
        "until": NOON + timedelta(hours=1),
        "rates": rates(),
    }
    return Correction(**{**facts, **changes})


LATER = NOON + timedelta(days=1)


def preview(wanted: Correction | None = None) -> list[Difference]:
    return rerating.preview(wanted or correction(), now=LATER)


def post(wanted: Correction | None = None, *, charges_more: bool = False) -> ReRating:
    return rerating.post(
        wanted or correction(),
        charges_more=charges_more,
        reason="published by mistake",
        created_by="op",
        now=LATER,
    )


def moved(books: Books) -> tuple[int, int, int]:
    return (ReRating.objects.count(), Adjustment.objects.count(), Entry.objects.count())


def test_a_preview_says_who_gets_what_back_and_moves_nothing(books: Books) -> None:
    # given
    for _ in range(3):
        books.served()
    books.drain()
    before = moved(books)
    # when
    (difference,) = preview()
    # then
    assert (difference.tenant_id, difference.events) == (books.tenant.pk, 3)
    assert (difference.charged_pico, difference.corrected_pico) == (3 * PAID, 3 * RIGHT)
    assert moved(books) == before


def test_a_correction_is_credit_for_the_tenant_against_revenue_and_no_event_changes(
    books: Books,
) -> None:
    # given
    for _ in range(3):
        books.served()
    books.drain()
    events = list(UsageEvent.objects.order_by("pk").values())
    left = books.balance().left_pico
    # when
    made = post()
    # then
    (adjustment,) = made.adjustments.all()
    refund = 3 * (PAID - RIGHT)
    assert adjustment.grant is not None
    assert (adjustment.grant.kind, int(adjustment.grant.amount_pico)) == ("adjustment", refund)
    assert books.account("revenue") == -(3 * PAID - refund)
    assert books.balance().left_pico == left + refund
    assert list(UsageEvent.objects.order_by("pk").values()) == events
    assert AuditEntry.objects.get(action="price.rerate").actor == "op"
    assert books.check() == {}


def test_posted_twice_it_moves_money_once(books: Books) -> None:
    # given
    books.served()
    books.drain()
    first = post()
    entries = Entry.objects.count()
    # when
    second = post()
    # then
    assert second.replaces == first
    assert second.adjustments.get().grant is None
    assert Entry.objects.count() == entries
    assert CreditGrant.objects.filter(kind="adjustment").count() == 1


def test_a_later_correction_posts_what_is_still_off_and_late_charges(books: Books) -> None:
    # given
    books.served()
    books.drain()
    post()
    books.served()
    books.drain()
    # when: the right price was a quarter, and one more request came in.
    made = post(correction(rates=rates(HALF // 2)))
    # then
    grant = made.adjustments.get().grant
    assert grant is not None
    right = 100 * desks.INPUT_PICO + 10 * HALF // 2
    assert int(grant.amount_pico) == (PAID + RIGHT - PAID + PAID) - 2 * right
    assert books.account("revenue") == -2 * right


def test_who_paid_too_little_is_left_alone_unless_it_is_asked_for(books: Books) -> None:
    # given
    books.served()
    books.drain()
    dearer = correction(rates=rates(2 * desks.OUTPUT_PICO))
    # when
    spared = post(dearer).adjustments.get()
    charged = post(dearer, charges_more=True).adjustments.get()
    # then
    assert spared.grant is None
    assert charged.grant is not None
    assert int(charged.grant.amount_pico) == -10 * desks.OUTPUT_PICO
    assert books.account("revenue") == -(PAID + 10 * desks.OUTPUT_PICO)


def test_a_charge_that_was_cut_at_its_hold_never_rises(books: Books) -> None:
    # given
    books.served(hold_nano=200_000)
    books.drain()
    # when
    (dearer,) = preview(correction(rates=rates(2 * desks.OUTPUT_PICO)))
    (cheaper,) = preview(correction(rates=rates(HALF, input_pico=desks.INPUT_PICO // 2)))
    # then
    assert (dearer.charged_pico, dearer.corrected_pico) == (200_000_000, 200_000_000)
    assert cheaper.corrected_pico == 100 * desks.INPUT_PICO // 2 + 10 * HALF


def test_an_attempt_settled_after_its_expiry_is_one_charge(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.checkpoint(request_id, charge_nano=216_000, usage=(100, 2))
    books.desk.now_ms += 700_000
    assert books.desk.expire(request_id)
    books.settle(request_id)
    books.drain()
    # when
    (difference,) = preview()
    # then
    assert (difference.events, difference.charged_pico) == (1, PAID)
    assert difference.corrected_pico == RIGHT


def test_a_plan_s_versions_are_corrected_by_its_own_change(books: Books) -> None:
    # given
    plan = PriceList.objects.create(slug="startup", name="Startup")
    price_lists.set_rule(
        price_list=plan, pattern="", change_ppm=-500_000, actor="op", now=NOON - timedelta(hours=2)
    )
    books.desk.price = PriceVersion.objects.get(price_list=plan).pk
    books.served(cost_pico=PAID // 2)
    books.drain()
    assert UsageEvent.objects.get().state == "posted"
    # when
    (difference,) = preview()
    # then
    assert (difference.charged_pico, difference.corrected_pico) == (PAID // 2, RIGHT // 2)


def test_what_lies_outside_the_period_or_at_another_tier_is_not_touched(books: Books) -> None:
    # given
    books.served()
    books.drain()
    prices.publish(
        sku_code=SKU,
        valid_from=NOON - timedelta(days=2),
        source="test",
        recorded_by="test",
        service_tier=1,
        **dict(rates().items()),  # type: ignore[arg-type]
    )
    # when / then
    assert preview(correction(until=NOON)) == []
    assert preview(correction(since=NOON + timedelta(microseconds=1))) == []
    assert preview(correction(slot=Slot(service_tier=1))) == []


def test_quarantined_and_resolved_events_are_left_to_the_person(books: Books) -> None:
    # given
    books.served(cost_pico=1)
    books.drain()
    event = UsageEvent.objects.get()
    assert event.state == "quarantined"
    # when / then: and they are named
    assert preview() == []
    (left,) = rerating.untouched(correction())
    charged = event.charged_nano * 1_000
    assert left == (books.tenant.pk, "in quarantine", 1, charged)
    quarantine.resolve_all(
        books.desk.client, event_ids=[event.pk], tenant_pico=700, supplier_pico=0,
        resolved_by="op", reason="seen", now=NOON,
    )  # fmt: skip
    assert preview() == []
    (left,) = rerating.untouched(correction())
    assert left == (books.tenant.pk, "decided by a person, or at an estimate", 1, 700)
    assert rerating.untouched(correction(until=NOON)) == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"until": NOON - timedelta(hours=1)}, "lies in the past, its end after"),
        ({"until": NOON + timedelta(days=9)}, "lies in the past"),
        ({"since": datetime(2026, 3, 1)}, "time zone"),  # noqa: DTZ001
        ({"rates": rates(-1)}, "out of bounds"),
        ({"rates": rates(True)}, "not a whole number"),
        ({"sku": "acme/nothing"}, "no price was ever published"),
        ({"slot": Slot(service_tier=9)}, "no such service tier"),
    ],
)
def test_a_correction_that_makes_no_sense_moves_nothing(
    books: Books, changes: dict[str, Any], match: str
) -> None:
    # given
    books.served()
    books.drain()
    before = moved(books)
    # when / then
    with pytest.raises(PriceRefused, match=match):
        post(correction(**changes))
    assert moved(books) == before


def test_periods_that_overlap_without_being_the_same_are_refused(books: Books) -> None:
    # given
    books.served()
    books.drain()
    post()
    before = moved(books)
    # when / then
    with pytest.raises(PriceRefused, match="correct exactly that period again"):
        post(correction(until=NOON + timedelta(hours=2)))
    assert moved(books) == before


def test_postgres_keeps_corrections_as_they_are(books: Books) -> None:
    # given
    books.served()
    books.drain()
    post()
    # when / then
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        ReRating.objects.update(reason="another")
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Adjustment.objects.all().delete()
