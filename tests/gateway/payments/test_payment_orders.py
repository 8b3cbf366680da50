"""Messages of the payment processor in every order, told twice, of payments not known yet: the
books are the same in the end."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from django.test import Client

from billing.books import ledger
from billing.books.ledger import AccountKey, Kind
from billing.limits import alert_channels
from billing.models import (
    AlertDelivery,
    BillingProfile,
    CreditGrant,
    Dispute,
    ProcessorEvent,
    Receipt,
    Recharge,
    Refund,
    TopUp,
)
from billing.payments import messages as payment_messages
from billing.payments import topups
from billing.payments.messages import Told
from gateway.alerts import texts as alert_texts
from gateway.payments import stripe_messages
from gateway.payments.stripe_messages import Message
from tests.billing import altering
from tests.fakes import processor as fakes
from tests.people import Person

pytestmark = pytest.mark.django_db
CENT = 10**10
NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
SELLER = {"legal_name": "House"}
State = ProcessorEvent.State
Raw = tuple[str, dict[str, Any]]


def bought(person: Person, now: datetime = NOW) -> TopUp:
    """A purchase of $20.00 and $3.80 tax, started."""
    BillingProfile.objects.get_or_create(
        tenant=person.tenant,
        legal_name="Aurora",
        address="1",
        country="DE",
        tax_name="VAT",
        tax_ppm=190_000,
    )
    return topups.start(tenant=person.tenant, net_cents=2_000, created_by="a", now=now)


def paid(topup: TopUp, payment: str) -> Raw:
    said = {"id": f"cs_{payment}", "payment_status": "paid", "payment_intent": payment}
    sums = {"amount_total": 2_380, "currency": "usd", "metadata": {"topup": str(topup.key)}}
    return "checkout.session.completed", {**said, **sums}


def refund(payment: str, total: int) -> Raw:
    return "charge.refunded", {"payment_intent": payment, "amount_refunded": total}


def dispute(payment: str, word: str, status: str = "needs_response", cents: int = 2_380) -> Raw:
    said = {"id": f"dp_{payment}", "payment_intent": payment, "amount": cents, "status": status}
    return f"charge.dispute.{word}", said


def tell(raw: Raw, *, event_id: str = "", now: datetime = NOW) -> str:
    made = fakes.event(*raw)
    message = Message(event_id or made["id"], *raw)
    told = Told(message.event_id, message.kind, repr(raw).encode(), now)
    return payment_messages.receive(told, stripe_messages.fact_of(message), seller=SELLER)


def books(person: Person) -> dict[str, int]:
    return {
        "cash": ledger.balance(AccountKey(Kind.CASH)) // CENT,
        "tax": ledger.balance(AccountKey(Kind.TAX_PAYABLE)) // CENT,
        "credit": ledger.balance(AccountKey(Kind.TENANT_CREDIT, person.tenant.pk)) // CENT,
    }


# Told of one purchase, and what of its 2,380 cents is gone in the end.
SETS: dict[str, tuple[list[tuple[Any, ...]], int]] = {
    "refunds": ([(refund, 500), (refund, 1_190), (refund, 1_190), (refund, 2_000)], 2_000),
    "won": (
        [(dispute, "created"), (dispute, "funds_withdrawn"), (dispute, "closed", "won")],
        0,
    ),
    "won, and the money is here": (
        [(dispute, "funds_withdrawn"), (dispute, "funds_reinstated"), (dispute, "closed", "won")],
        0,
    ),
    "lost": (
        [(dispute, "created"), (dispute, "funds_withdrawn"), (dispute, "closed", "lost")],
        2_380,
    ),
    "refunded in part, and disputed": (
        [(refund, 700), (dispute, "created", "needs_response", 1_000), (refund, 900)],
        1_900,
    ),
    "refunded and lost": (
        [(refund, 2_380), (dispute, "created"), (dispute, "closed", "lost")],
        2_380,
    ),
    "an inquiry": (
        [
            (dispute, "created", "warning_needs_response"),
            (dispute, "closed", "warning_closed"),
            (refund, 1),
        ],
        1,
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_every_order_ends_in_the_same_books(name: str, alice: Person) -> None:
    said, gone = SETS[name]
    tax = (gone * 380 + 1_190) // 2_380
    for number, order in enumerate(permutations(range(len(said) + 1))):
        # given
        payment, before = f"pi_{number}", books(alice)
        topup = bought(alice, NOW + timedelta(days=2 * number))
        raw = [paid(topup, payment), *(make(payment, *rest) for make, *rest in said)]
        # when each is told twice, once under another id
        for place in order:
            tell(raw[place], event_id=f"evt_{number}_{place}")
            tell(raw[place], event_id=f"evt_{number}_{place}")
            tell(raw[place])
        # then
        topup.refresh_from_db()
        assert (topup.state, topup.returned_cents) == (TopUp.State.PAID, gone), order
        moved = {account: cents - before[account] for account, cents in books(alice).items()}
        kept = {"cash": 2_380 - gone, "tax": tax - 380, "credit": gone - tax - 2_000}
        assert moved == kept, order
        notes = Refund.objects.filter(topup=topup)
        assert sum(note.total_cents for note in notes) == gone
        assert sum(note.tax_cents for note in notes) == tax
    assert not ProcessorEvent.objects.exclude(state=State.DONE).exists()
    assert Receipt.objects.count() == TopUp.objects.count()


def test_a_refund_that_overtakes_its_payment_waits_for_it(alice: Person) -> None:
    # given
    topup = bought(alice)
    # when
    assert tell(refund("pi_1", 2_380)) == "no such payment"
    # then nothing has moved, and the message is there for a person to see
    event = ProcessorEvent.objects.get()
    assert (event.state, event.reference, event.tries) == (State.WAITING, "pi_1", 1)
    assert event.due_at == NOW + timedelta(minutes=1)
    assert not CreditGrant.objects.exists()
    # and it is tried again, in growing pauses
    for pause in (1, 2, 4, 8):
        event.refresh_from_db()
        assert event.due_at is not None
        assert payment_messages.retry_due(seller=SELLER, now=event.due_at) == 0
        before, _ = event.due_at, event.refresh_from_db()
        assert event.due_at == before + timedelta(minutes=2 * pause)
    # when
    tell(paid(topup, "pi_1"))
    # then
    event.refresh_from_db()
    assert (event.state, event.fact, event.due_at) == (State.DONE, None, None)
    assert books(alice) == {"cash": 0, "tax": 0, "credit": 0}


def test_a_payment_that_commits_beside_its_refund_leaves_it_to_the_clock(alice: Person) -> None:
    # given: the refund found no payment, and the payment no refund
    topup = bought(alice)
    tell(paid(topup, "pi_1"))
    altering.execute("billing_topup", "UPDATE billing_topup SET payment_reference = 'pi_later'")
    tell(refund("pi_1", 2_380))
    altering.execute("billing_topup", "UPDATE billing_topup SET payment_reference = 'pi_1'")
    # when
    assert payment_messages.retry_due(seller=SELLER, now=NOW) == 0
    assert payment_messages.retry_due(seller=SELLER, now=NOW + timedelta(minutes=1)) == 1
    # then
    assert books(alice)["cash"] == 0


def test_what_nobody_ever_paid_for_is_given_up_after_a_month(alice: Person) -> None:
    # given
    bought(alice)
    tell(refund("pi_of_another_shop", 100))
    event, now = ProcessorEvent.objects.get(), NOW
    # when
    while event.due_at is not None:
        now = event.due_at
        assert payment_messages.retry_due(seller=SELLER, now=now) == 0
        event.refresh_from_db()
    # then
    assert (event.state, event.fact) == (State.GIVEN_UP, None)
    assert timedelta(days=30) <= now - NOW < timedelta(days=31)
    assert event.tries < 150
    assert payment_messages.retry_due(seller=SELLER, now=now + timedelta(days=1)) == 0


def test_a_dispute_takes_credit_with_a_note_an_alert_and_no_recharge(alice: Person) -> None:
    # given
    tell(paid(bought(alice), "pi_1"))
    Recharge.objects.create(
        tenant=alice.tenant, is_on=True, below_cents=1, amount_cents=500, monthly_max_cents=500
    )
    alert_channels.add(
        tenant=alice.tenant, kind="webhook", target="https://example.com/h", actor="a", now=NOW
    )
    # when
    tell(dispute("pi_1", "created"))
    # then
    note = Refund.objects.get()
    assert (note.cause, note.net_cents, note.tax_cents) == ("dispute", 2_000, 380)
    delivery = AlertDelivery.objects.get(refund=note)
    assert b'"credit.dispute"' in alert_texts.webhook_of(delivery)
    assert "Credit taken back: $20" == alert_texts.mail_of(delivery, console_url="")[0]
    assert not Recharge.objects.get().is_on
    # when
    tell(dispute("pi_1", "closed", "won"))
    # then
    back = Refund.objects.latest("pk")
    assert (back.cause, back.net_cents, back.tax_cents) == ("dispute_won", -2_000, -380)
    second = AlertDelivery.objects.get(refund=back)
    assert "Credit given back: $20" == alert_texts.mail_of(second, console_url="")[0]
    assert books(alice) == {"cash": 2_380, "tax": -380, "credit": -2_000}
    client = Client()
    client.force_login(alice.user)
    listed = client.get("/api/v1/tenants/aurora/refunds/").json()
    assert [(each["cause"], each["total"]) for each in listed] == [
        ("dispute_won", "-23.80"),
        ("dispute", "23.80"),
    ]
    assert [client.get(f"/refunds/{each.pk}/pdf/").status_code for each in (note, back)] == [
        200,
        200,
    ]


def test_an_inquiry_is_noted_and_takes_nothing(alice: Person) -> None:
    tell(paid(bought(alice), "pi_1"))
    tell(dispute("pi_1", "created", "warning_needs_response"))
    assert Dispute.objects.get().stages == ["inquiry"]
    assert not Refund.objects.exists()


def test_a_second_payment_for_one_purchase_is_for_a_person(alice: Person) -> None:
    # given
    topup = bought(alice)
    tell(paid(topup, "pi_1"))
    # when
    assert tell(paid(topup, "pi_2")).startswith("paid twice")
    # then
    assert ProcessorEvent.objects.latest("pk").state == State.REVIEW
    assert books(alice) == {"cash": 2_380, "tax": -380, "credit": -2_000}


def test_money_back_of_a_payment_under_review_moves_nothing(alice: Person) -> None:
    # given
    topup = bought(alice)
    kind, said = paid(topup, "pi_1")
    tell((kind, {**said, "amount_total": 100}))
    # when
    assert tell(refund("pi_1", 100)).startswith("noted")
    # then
    topup.refresh_from_db()
    assert (topup.state, topup.refunded_cents, topup.returned_cents) == ("review", 100, 0)
    assert books(alice) == {"cash": 0, "tax": 0, "credit": 0}


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("charge.refunded", {"payment_intent": "pi_1"}),
        ("charge.refunded", {"payment_intent": "pi_1", "amount_refunded": "12"}),
        ("charge.refunded", {"payment_intent": "pi_1", "amount_refunded": 1.5}),
        ("charge.refunded", {"payment_intent": "pi_1", "amount_refunded": -1}),
        ("charge.refunded", {"payment_intent": {"id": "pi_1"}, "amount_refunded": 100}),
        ("charge.refunded", {"payment_intent": "pi_1", "amount_refunded": True}),
        ("charge.dispute.created", {"payment_intent": "pi_1", "status": "needs_response"}),
        ("payment_intent.succeeded", {"id": "pi_1", "metadata": {"topup": "x"}, "amount": None}),
        ("refund.failed", {"id": "re_1", "payment_intent": "pi_1", "status": "failed"}),
        ("checkout.session.completed", {"payment_status": "paid", "metadata": {"topup": "x"}}),
    ],
)
def test_a_signed_message_that_cannot_be_read_is_noted_and_not_sent_again(
    kind: str, subject: dict[str, Any], settings: Any
) -> None:
    # given
    settings.STRIPE_API_KEY, settings.STRIPE_WEBHOOK_SECRET = fakes.API_KEY, fakes.WEBHOOK_SECRET
    body, signature = fakes.signed(fakes.event(kind, subject))
    # when
    answers = [
        Client().post(
            "/webhooks/stripe/",
            body,
            content_type="application/json",
            HTTP_STRIPE_SIGNATURE=signature,
        )
        for _ in range(2)
    ]
    # then
    assert [answer.status_code for answer in answers] == [200, 200]
    assert ProcessorEvent.objects.get().state == State.REVIEW
    assert not CreditGrant.objects.exists()


@pytest.mark.parametrize("key", ["", "nonsense", "00000000-0000-0000-0000-000000000000"])
@pytest.mark.parametrize("kind", ["checkout.session.completed", "checkout.session.expired"])
def test_a_page_of_another_shop_is_answered(key: str, kind: str, alice: Person) -> None:
    _, said = paid(bought(alice), "pi_1")
    assert tell((kind, {**said, "metadata": {"topup": key}}))
    assert tell((kind, {**said, "metadata": None})) == "of no concern"
    assert not CreditGrant.objects.exists()


@pytest.mark.parametrize("kind", ["customer.created", "invoice.paid", "charge.succeeded", ""])
def test_of_what_does_not_concern_us_nothing_is_read(kind: str) -> None:
    odd = {"id": 7, "metadata": "x", "amount": "12", "payment_intent": ["pi_1"]}
    assert stripe_messages.fact_of(Message("evt_1", kind, odd)) == "of no concern"


def test_a_payment_of_another_shop_s_is_of_no_concern() -> None:
    said = {"id": "pi_1", "metadata": {"order": "5"}, "amount": 100, "currency": "usd"}
    for kind in ("payment_intent.succeeded", "payment_intent.payment_failed"):
        assert stripe_messages.fact_of(Message("evt_1", kind, said)) == "of no concern"
