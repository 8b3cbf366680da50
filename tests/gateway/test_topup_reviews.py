"""A purchase under review, and a message that waits for a person: ended once, with a note."""

from datetime import timedelta
from typing import Any, Final

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Permission, User
from django.test import Client

from billing.errors import CreditRefused
from billing.models import (
    AuditEntry,
    CreditGrant,
    ProcessorEvent,
    Receipt,
    Recharge,
    Refund,
    Tenant,
    TopUp,
)
from billing.payments import recharges, topup_reviews, topups
from billing.payments.facts import Failed
from tests.gateway.payments.test_payment_orders import (
    NOW,
    SELLER,
    books,
    bought,
    dispute,
    paid,
    refund,
    tell,
)
from tests.people import Person

pytestmark = pytest.mark.django_db
LATER: Final = NOW + timedelta(days=40)
PAGE: Final = "/admin/billing/topup/"
NOTHING: Final = {"cash": 0, "tax": 0, "credit": 0}
State = TopUp.State


def doubted(person: Person, **said: Any) -> TopUp:
    """Of 2,380 cents that were asked for, another sum was paid."""
    topup = bought(person)
    kind, subject = paid(topup, "pi_1")
    assert tell((kind, {**subject, "amount_total": 1_190, **said})).endswith("review")
    topup.refresh_from_db()
    return topup


def silent(person: Person) -> TopUp:
    """An automatic one of which the processor never said what became of it."""
    topup = bought(person)
    TopUp.objects.filter(pk=topup.pk).update(is_automatic=True, due_at=NOW)
    Recharge.objects.create(
        tenant=person.tenant, is_on=True, below_cents=1, amount_cents=2_000, monthly_max_cents=2_000
    )
    assert recharges.give_up(topup, now=LATER)
    topup.refresh_from_db()
    return topup


def granted(topup: TopUp, cents: int, *, reference: str = "") -> TopUp:
    return topup_reviews.credit(
        topup_id=topup.pk,
        arrived_cents=cents,
        reference=reference,
        note="seen at the processor",
        actor="op",
        seller=SELLER,
        now=LATER,
    )


def closed(topup: TopUp) -> TopUp:
    return topup_reviews.close(topup_id=topup.pk, note="sent back", actor="op", now=LATER)


def test_what_arrived_is_granted_with_its_tax_and_a_receipt(alice: Person) -> None:
    # when
    topup = granted(doubted(alice), 1_190)
    # then
    assert (topup.state, topup.net_cents, topup.tax_cents) == (State.PAID, 1_000, 190)
    assert books(alice) == {"cash": 1_190, "tax": -190, "credit": -1_000}
    receipt = Receipt.objects.get()
    assert (receipt.net_cents, receipt.tax_cents, receipt.tax_ppm) == (1_000, 190, 190_000)
    entry = AuditEntry.objects.get(action="topup.credit")
    assert (entry.actor, entry.reason, entry.tenant) == (
        "op",
        "seen at the processor",
        alice.tenant,
    )
    assert entry.before["net_cents"] == 2_000
    # and the same payment told again, or twice, is no other one
    assert tell(paid(topup, "pi_1"), now=LATER) == "known already"
    assert tell(paid(topup, "pi_2"), now=LATER).startswith("paid twice")
    assert books(alice)["cash"] == 1_190


@pytest.mark.parametrize("arrived", [2_380, 4_760])
def test_what_went_back_during_the_review_is_taken_back_at_once(
    arrived: int, alice: Person
) -> None:
    # given: more than was asked for was paid, and all of it went back
    topup = doubted(alice, amount_total=arrived, currency="eur")
    for total in (100, arrived):
        assert tell(refund("pi_1", total)).startswith("noted")
    # when
    granted(topup, arrived)
    # then
    assert books(alice) == NOTHING
    assert Refund.objects.get().total_cents == arrived


def test_a_dispute_during_the_review_is_taken_back_and_won_again(alice: Person) -> None:
    topup = doubted(alice)
    tell(dispute("pi_1", "created", cents=1_190))
    granted(topup, 1_190)
    assert books(alice) == NOTHING
    assert Refund.objects.get().cause == Refund.Cause.DISPUTE
    tell(dispute("pi_1", "closed", "won", cents=1_190))
    assert books(alice) == {"cash": 1_190, "tax": -190, "credit": -1_000}


def test_a_closed_one_stays_closed_whatever_is_told_of_its_payment(alice: Person) -> None:
    # when
    topup = closed(doubted(alice))
    # then
    assert (topup.state, topup.failure) == (State.FAILED, "sent back")
    said = [paid(topup, "pi_1"), refund("pi_1", 1_190), dispute("pi_1", "created")]
    for raw in said:
        tell(raw, now=LATER)
    topups.failed(Failed(key=str(topup.key), why="late"), now=LATER)
    topup.refresh_from_db()
    assert (topup.state, topup.failure, topup.grant) == (State.FAILED, "sent back", None)
    assert books(alice) == NOTHING
    assert not ProcessorEvent.objects.exclude(state=ProcessorEvent.State.DONE).exists()


def test_one_that_nobody_spoke_of_is_granted_under_the_name_of_its_payment(alice: Person) -> None:
    # given
    topup = silent(alice)
    with pytest.raises(CreditRefused, match="name at the processor"):
        granted(topup, 2_380)
    other = bought(alice)
    tell(paid(other, "pi_other"))
    before = books(alice)
    with pytest.raises(CreditRefused, match="another purchase"):
        granted(topup, 2_380, reference="pi_other")
    assert books(alice) == before
    # when
    granted(topup, 2_380, reference="pi_9")
    # then
    assert books(alice)["cash"] == before["cash"] + 2_380
    assert tell(paid(topup, "pi_9"), now=LATER) == "known already"
    assert Receipt.objects.get(topup=topup).payment_reference == "pi_9"


@pytest.mark.parametrize("is_suspended", [False, True])
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_payment_that_is_told_of_at_last_is_credit(
    is_closed: bool, is_suspended: bool, alice: Person
) -> None:
    # given
    topup = silent(alice)
    if is_closed:
        closed(topup)
    if is_suspended:
        Tenant.objects.update(status=Tenant.Status.SUSPENDED)
    # when: late, twice, under two ids
    for raw in (paid(topup, "pi_1"), paid(topup, "pi_1")):
        tell(raw, now=LATER)
    # then
    topup.refresh_from_db()
    assert topup.state == State.PAID
    assert books(alice) == {"cash": 2_380, "tax": -380, "credit": -2_000}
    with pytest.raises(CreditRefused, match="not under review"):
        closed(topup)


def test_a_failure_that_is_told_of_at_last_ends_the_review(alice: Person) -> None:
    topup = silent(alice)
    assert topups.failed(Failed(key=str(topup.key), why="declined"), now=LATER) == "failed"
    topup.refresh_from_db()
    assert (topup.state, topup.failure) == (State.FAILED, "declined")
    assert Recharge.objects.get().failures == 1


def test_a_failure_does_not_end_a_review_of_money_that_came(alice: Person) -> None:
    topup = doubted(alice)
    assert topups.failed(Failed(key=str(topup.key), why="no"), now=LATER) == "nothing to fail"
    topup.refresh_from_db()
    assert topup.state == State.REVIEW


@pytest.mark.parametrize("cents", [0, -1, topup_reviews.ARRIVED_CENTS_MAX + 1])
def test_a_sum_that_cannot_have_arrived_moves_nothing(cents: int, alice: Person) -> None:
    topup = doubted(alice)
    with pytest.raises(CreditRefused, match="has arrived"):
        granted(topup, cents)
    assert books(alice) == NOTHING
    assert TopUp.objects.get().state == State.REVIEW
    assert not AuditEntry.objects.filter(action__startswith="topup.").exists()


def asked(topup: TopUp, **form: str) -> dict[str, str]:
    return {"action": "end_review", ACTION_CHECKBOX_NAME: str(topup.pk), **form}


def test_the_page_shows_asks_and_ends_it(admin_client: Client, alice: Person) -> None:
    # given
    topup = doubted(alice)
    shown = admin_client.post(PAGE, asked(topup)).content.decode()
    assert "paid 1190 usd, asked 2380 usd" in shown
    for wrong in (
        {"end": "credit", "note": "x"},
        {"end": "credit", "arrived_usd": "11.901", "note": "x"},
        {"end": "credit", "arrived_usd": "11.90", "note": " "},
        {"end": "", "note": "x"},
    ):
        answer = admin_client.post(PAGE, asked(topup, _confirm="1", **wrong))
        assert answer.status_code == 200
    assert books(alice) == NOTHING
    # when
    form = {"_confirm": "1", "end": "credit", "arrived_usd": "11.90", "note": "half of it"}
    assert admin_client.post(PAGE, asked(topup, **form)).status_code == 302
    admin_client.post(PAGE, asked(topup, **form))
    # then
    assert books(alice) == {"cash": 1_190, "tax": -190, "credit": -1_000}
    assert AuditEntry.objects.get(action="topup.credit").actor == "admin"


def test_who_may_only_look_ends_nothing(alice: Person) -> None:
    # given
    topup = doubted(alice)
    watcher = User.objects.create_user("watcher", is_staff=True)
    watcher.user_permissions.set(Permission.objects.filter(codename="view_topup"))
    client = Client()
    client.force_login(watcher)
    # when
    form = {"_confirm": "1", "end": "close", "note": "x"}
    client.post(PAGE, asked(topup, **form))
    # then
    topup.refresh_from_db()
    assert topup.state == State.REVIEW
    assert not CreditGrant.objects.exists()


def test_a_message_that_waits_for_a_person_is_resolved_with_a_note(
    admin_client: Client, alice: Person
) -> None:
    # given: a second payment for one purchase
    topup = bought(alice)
    tell(paid(topup, "pi_1"))
    tell(paid(topup, "pi_2"))
    event, before = ProcessorEvent.objects.latest("pk"), books(alice)
    page = "/admin/billing/processorevent/"
    form = {"action": "resolve", ACTION_CHECKBOX_NAME: str(event.pk)}
    assert "paid twice" in admin_client.post(page, form).content.decode()
    admin_client.post(page, {**form, "_confirm": "1", "note": " "})
    event.refresh_from_db()
    assert event.state == ProcessorEvent.State.REVIEW
    # when
    for _ in range(2):
        admin_client.post(page, {**form, "_confirm": "1", "note": "sent back"})
    # then
    event.refresh_from_db()
    assert event.state == ProcessorEvent.State.DONE
    entry = AuditEntry.objects.get(action="processor_event.resolve")
    assert (entry.subject, entry.reason) == (event.event_id, "sent back")
    assert books(alice) == before
