"""Buying credit: against localstripe, by the official SDK, with messages told twice and forged."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse
from django.test import Client

from billing.books import ledger
from billing.books.ledger import AccountKey, Kind
from billing.credit import balances as credit
from billing.errors import CreditRefused
from billing.models import (
    BillingProfile,
    CreditGrant,
    ProcessorEvent,
    Receipt,
    Recharge,
    Refund,
    TopUp,
)
from billing.payments import topups
from billing.payments.facts import Paid
from gateway.kinds import Role
from gateway.models import Member
from gateway.payments import recharging
from gateway.payments import stripe_messages as payments
from tests.billing.invoicing.test_invoice_pdf import text_of
from tests.fakes import processor as fakes
from tests.fakes.processor import Processor
from tests.patience import eventually
from tests.people import Person

USD = 10**12
State = TopUp.State
WEBHOOK = "/webhooks/stripe/"


@pytest.fixture(scope="module")
def localstripe() -> Iterator[Processor]:
    with fakes.running() as processor:
        yield processor


@pytest.fixture
def processor(
    localstripe: Processor, settings: Any, redis_client: redis.Redis, transactional_db: None
) -> Processor:
    settings.STRIPE_API_KEY = fakes.API_KEY
    settings.STRIPE_WEBHOOK_SECRET = fakes.WEBHOOK_SECRET
    settings.STRIPE_API_URL = localstripe.url
    return localstripe


@pytest.fixture
def buyer(client: Client, alice: Person, processor: Processor) -> Client:
    BillingProfile.objects.create(
        tenant=alice.tenant,
        legal_name="Aurora",
        address="1",
        country="DE",
        tax_name="VAT",
        tax_ppm=190_000,
    )
    client.force_login(alice.user)
    return client


def opened(buyer: Client, dollars: str = "20", **more: str) -> str:
    """Ask to buy; the address of the payment page."""
    answer = buyer.post("/billing/buy/", {"amount_usd": dollars, **more})
    assert answer.status_code == 200, answer.content.decode()
    found = re.search(r"https://pay\.example/\w+", answer.content.decode())
    assert found is not None
    return found[0]


def told(client: Client, message: tuple[bytes, str]) -> HttpResponse:
    body, signature = message
    answer: HttpResponse = client.post(
        WEBHOOK, body, content_type="application/json", HTTP_STRIPE_SIGNATURE=signature
    )
    return answer


def credit_of(person: Person) -> int:
    return credit.credit_pico(person.tenant)


def test_a_paid_page_becomes_credit_once(
    buyer: Client, alice: Person, processor: Processor
) -> None:
    # given
    page = opened(buyer)
    assert processor.pages[page.rpartition("/")[2]]["amount_total"] == 2_380
    message = processor.pay(page)
    # when
    answers = [told(Client(), message) for _ in range(3)]
    # then
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    topup = TopUp.objects.get()
    assert (topup.state, topup.net_cents, topup.tax_cents) == (State.PAID, 2_000, 380)
    assert processor.seen_keys.count(str(topup.key)) == 1
    assert credit_of(alice) == 20 * USD
    assert ledger.balance(AccountKey(Kind.CASH)) == 2_380 * 10**10
    assert ledger.balance(AccountKey(Kind.TAX_PAYABLE)) == -380 * 10**10
    assert ProcessorEvent.objects.count() == 1
    assert "$20.00" in buyer.get("/billing/").content.decode()


def test_a_message_that_nobody_signed_moves_nothing(
    buyer: Client, alice: Person, processor: Processor
) -> None:
    # given
    body, signature = processor.pay(opened(buyer))
    old = fakes.signed(fakes.event("checkout.session.completed", {}), age_s=600)
    forged = [
        (body, ""),
        (body, signature.replace("v1=", "v1=0")),
        (body.replace(b"2380", b"9380"), signature),
        (b"", signature),
        (b"\xff\x00", signature),
        old,
    ]
    # then
    assert [told(Client(), message).status_code for message in forged] == [400] * 6
    assert (credit_of(alice), ProcessorEvent.objects.count()) == (0, 0)


def test_an_event_known_with_another_body_is_refused(
    buyer: Client, alice: Person, processor: Processor
) -> None:
    # given
    first, second = fakes.event("payment_intent.succeeded", {"id": "pi_1"}), {}
    second = {**first, "data": {"object": {"id": "pi_2"}}}
    # then
    assert told(Client(), fakes.signed(first)).status_code == 200
    assert told(Client(), fakes.signed(second)).status_code == 409
    assert credit_of(alice) == 0


@pytest.mark.parametrize("wrong", [{"amount_total": 100}, {"currency": "eur"}])
def test_another_sum_than_asked_for_waits_for_a_person(
    wrong: dict[str, Any], buyer: Client, alice: Person, processor: Processor
) -> None:
    # when
    answer = told(Client(), processor.pay(opened(buyer), **wrong))
    # then
    assert answer.status_code == 200
    assert TopUp.objects.get().state == State.REVIEW
    assert credit_of(alice) == 0


def test_a_refund_takes_back_credit_and_tax_in_proportion(
    buyer: Client, alice: Person, processor: Processor
) -> None:
    # given
    told(Client(), processor.pay(opened(buyer)))
    reference = TopUp.objects.get().payment_reference
    # when
    for total in (1_190, 1_190, 2_380, 9_999):
        charge = {"payment_intent": reference, "amount_refunded": total}
        assert told(Client(), fakes.signed(fakes.event("charge.refunded", charge))).status_code == (
            200
        )
    # then
    assert [int(g.amount_pico) for g in CreditGrant.objects.order_by("pk")] == [
        20 * USD,
        -10 * USD,
        -10 * USD,
    ]
    assert ledger.balance(AccountKey(Kind.CASH)) == 0
    assert ledger.balance(AccountKey(Kind.TAX_PAYABLE)) == 0


@pytest.mark.parametrize("amount", ["", "4.99", "100001", "-20", "NaN", "1e3", "٢٠", "20.001"])
def test_a_sum_that_cannot_be_bought_opens_no_page(amount: str, buyer: Client) -> None:
    # when
    answer = buyer.post("/billing/buy/", {"amount_usd": amount})
    # then
    assert answer.status_code == 422
    assert TopUp.objects.count() == 0


def test_pages_that_nobody_pays_are_limited(alice: Person, processor: Processor) -> None:
    # given
    now = datetime.now(UTC)
    for _ in range(topups.STARTED_MAX):
        topups.start(tenant=alice.tenant, net_cents=500, created_by="a", now=now)
    # then
    with pytest.raises(CreditRefused, match="under way"):
        topups.start(tenant=alice.tenant, net_cents=500, created_by="a", now=now)


def test_only_managers_buy_and_only_where_it_is_set_up(
    client: Client, alice: Person, processor: Processor, settings: Any
) -> None:
    Member.objects.filter(user=alice.user).update(role=Role.DEVELOPER)
    client.force_login(alice.user)
    assert client.post("/billing/buy/", {"amount_usd": "20"}).status_code == 403
    settings.STRIPE_API_KEY = ""
    assert Client().post(WEBHOOK, b"{}", content_type="application/json").status_code == 404
    Member.objects.filter(user=alice.user).update(role=Role.OWNER)
    assert client.post("/billing/buy/", {"amount_usd": "20"}).status_code == 404


def test_a_processor_that_is_away_is_told_plainly(
    buyer: Client, settings: Any, processor: Processor
) -> None:
    # given
    settings.STRIPE_API_URL = "http://127.0.0.1:9"
    # when
    answer = buyer.post("/billing/buy/", {"amount_usd": "20"})
    # then
    assert answer.status_code == 422
    assert "payment page" in answer.content.decode()


def recharge(alice: Person, processor: Processor, card: str = fakes.GOOD_CARD) -> Recharge:
    payer, saved = processor.save_card(card)
    return Recharge.objects.create(
        tenant=alice.tenant,
        is_on=True,
        below_cents=1_000,
        amount_cents=2_000,
        monthly_max_cents=5_000,
        payer_reference=payer,
        card_reference=saved,
    )


def run(now: datetime) -> None:
    recharging.start_due(now)
    recharging.ask_due(now)


def test_little_left_buys_more_up_to_the_month_s_sum(alice: Person, processor: Processor) -> None:
    # given
    recharge(alice, processor)
    start = datetime(2026, 11, 2, tzinfo=UTC)
    # when
    for minutes in (0, 1, 11, 22, 33):
        run(start + timedelta(minutes=minutes))
        credit.grant(
            tenant=alice.tenant,
            amount_pico=-max(credit_of(alice), 1),
            reason="spent",
            created_by="test",
        )
    # then: twice at $20 fit into $50, and not twice within ten minutes
    assert [t.state for t in TopUp.objects.order_by("pk")] == [State.PAID, State.PAID]
    assert ledger.balance(AccountKey(Kind.CASH)) == 40 * USD


def test_enough_left_buys_nothing(alice: Person, processor: Processor) -> None:
    # given
    recharge(alice, processor)
    credit.grant(tenant=alice.tenant, amount_pico=11 * USD, reason="r", created_by="t")
    # when
    run(datetime.now(UTC))
    # then
    assert TopUp.objects.count() == 0


def test_a_card_that_fails_three_times_is_not_tried_again(
    alice: Person, processor: Processor
) -> None:
    # given
    made = recharge(alice, processor, fakes.DECLINED_LATER)
    start = datetime(2026, 11, 2, tzinfo=UTC)
    # when
    for minutes in (0, 11, 22, 33, 44):
        run(start + timedelta(minutes=minutes))
    # then
    made.refresh_from_db()
    assert [t.state for t in TopUp.objects.all()] == [State.FAILED] * 3
    assert (made.is_on, made.failures, credit_of(alice)) == (False, 3, 0)
    assert made.failure


def test_a_saved_card_and_the_processor_s_own_message_complete_a_purchase(
    buyer: Client, alice: Person, processor: Processor, live_server: Any
) -> None:
    # given: a purchase that saved its card
    terms = {
        "is_on": "on",
        "below_usd": "30",
        "amount_usd": "20",
        "monthly_max_usd": "40",
    }
    assert buyer.post("/billing/recharge/", terms).status_code == 302
    told(Client(), processor.pay(opened(buyer, save_card="on")))
    made = Recharge.objects.get()
    assert made.card_reference.startswith("pm_")
    processor.tell(f"{live_server.url}{WEBHOOK}", "payment_intent.succeeded")
    # when
    run(datetime.now(UTC))
    # then: the answer and the message say the same, and it counts once
    eventually(lambda: ProcessorEvent.objects.filter(kind=payments.CARD_PAID).exists())
    assert [t.state for t in TopUp.objects.all()] == [State.PAID, State.PAID]
    assert credit_of(alice) == 40 * USD


def test_a_purchase_has_a_receipt_that_says_who_paid_what(
    buyer: Client, alice: Person, charlie: Person, processor: Processor
) -> None:
    # given two purchases, the second after the profile has changed
    message = processor.pay(opened(buyer))
    for _ in range(2):
        told(Client(), message)
    page = opened(buyer)
    BillingProfile.objects.update(tax_ppm=70_000, legal_name="Aurora SE")
    told(Client(), processor.pay(page))

    # when
    first, second = Receipt.objects.order_by("pk")
    answers = [buyer.get(f"/receipts/{each.pk}/pdf/") for each in (first, second)]

    # then each has a number of its own, and the second names no rate that it was not
    year = datetime.now(UTC).year
    assert [first.number, second.number] == [f"RCP-{year}-000001", f"RCP-{year}-000002"]
    assert [answer["Content-Type"] for answer in answers] == ["application/pdf"] * 2
    shown = [text_of(answer.content) for answer in answers]
    for expected in (first.number, "Aurora", "VAT 19 %", "$20.00", "$3.80", "$23.80"):
        assert expected in shown[0]
    assert first.payment_reference in shown[0].replace("\n", "")
    assert "Aurora SE" in shown[1]
    assert "%" not in shown[1]
    assert buyer.get(f"/receipts/{first.pk}/pdf/").content == answers[0].content

    # and it is on the billing page and in the API, and nobody else's
    assert first.number in buyer.get("/billing/").content.decode()
    listed = buyer.get("/api/v1/tenants/aurora/receipts/").json()
    assert [(each["number"], each["total"]) for each in listed] == [
        (second.number, "23.80"),
        (first.number, "23.80"),
    ]
    stranger = Client()
    stranger.force_login(charlie.user)
    assert stranger.get(f"/receipts/{first.pk}/pdf/").status_code == 404

    # and PostgreSQL keeps it
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Receipt.objects.update(net_cents=1)


def test_a_payment_of_another_sum_has_no_receipt(
    buyer: Client, processor: Processor, alice: Person
) -> None:
    topup = topups.start(
        tenant=alice.tenant, net_cents=2_000, created_by="alice", now=datetime.now(UTC)
    )
    said = topups.paid(
        Paid(key=str(topup.key), total_cents=1, currency="usd", reference="pi_1"),
        seller={"legal_name": "House"},
        now=datetime.now(UTC),
    )
    assert said.endswith("review")
    assert not Receipt.objects.exists()


def back(processor_says: int, reference: str) -> HttpResponse:
    charge = {"payment_intent": reference, "amount_refunded": processor_says}
    return told(Client(), fakes.signed(fakes.event("charge.refunded", charge)))


def test_each_refund_has_a_note_whose_taxes_add_up_to_the_purchases(
    buyer: Client, alice: Person, charlie: Person, processor: Processor
) -> None:
    # given a purchase of $20.00 and $3.80 tax, and a buyer that has moved since
    told(Client(), processor.pay(opened(buyer)))
    receipt = Receipt.objects.get()
    BillingProfile.objects.update(legal_name="Aurora SE", tax_ppm=70_000)

    # when it goes back in three parts, each told twice, and then once more than there is
    for total in (333, 333, 1_500, 1_500, 9_999, 9_999):
        assert back(total, receipt.payment_reference).status_code == 200

    # then
    notes = list(Refund.objects.order_by("pk"))
    year = datetime.now(UTC).year
    assert [note.number for note in notes] == [f"RFN-{year}-00000{n}" for n in (1, 2, 3)]
    assert [note.total_cents for note in notes] == [333, 1_167, 880]
    assert sum(note.tax_cents for note in notes) == receipt.tax_cents
    assert sum(note.net_cents for note in notes) == receipt.net_cents
    taken = CreditGrant.objects.filter(amount_pico__lt=0).order_by("pk")
    assert [-int(grant.amount_pico) // 10**10 for grant in taken] == [n.net_cents for n in notes]

    # and the document says whose, for what, and with which tax: as the receipt did
    answer = buyer.get(f"/refunds/{notes[0].pk}/pdf/")
    shown = text_of(answer.content)
    assert answer["Content-Type"] == "application/pdf"
    for expected in (notes[0].number, receipt.number, "VAT 19 %", "-$2.80", "-$0.53", "-$3.33"):
        assert expected in shown
    assert "Aurora SE" not in shown
    assert buyer.get(f"/refunds/{notes[0].pk}/pdf/").content == answer.content

    # and it is listed, to its tenant alone, and stays
    assert notes[2].number in buyer.get("/billing/").content.decode()
    listed = buyer.get("/api/v1/tenants/aurora/refunds/").json()
    assert [(each["number"], each["receipt"], each["total"]) for each in listed] == [
        (note.number, receipt.number, f"{note.total_cents / 100:.2f}") for note in notes[::-1]
    ]
    stranger = Client()
    stranger.force_login(charlie.user)
    assert stranger.get(f"/refunds/{notes[0].pk}/pdf/").status_code == 404
    assert stranger.get("/api/v1/tenants/aurora/refunds/").status_code == 404
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Refund.objects.update(net_cents=1)


def test_a_refund_of_a_purchase_from_before_receipts_names_the_parties_of_today(
    buyer: Client, alice: Person, processor: Processor
) -> None:
    # given: a database of before receipts
    told(Client(), processor.pay(opened(buyer)))
    reference = TopUp.objects.get().payment_reference
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE billing_receipt")
    # when
    assert back(2_380, reference).status_code == 200
    # then
    note = Refund.objects.get()
    assert (note.receipt, note.tax_ppm, note.total_cents) == ("", 190_000, 2_380)
    assert buyer.get(f"/refunds/{note.pk}/pdf/").status_code == 200


@pytest.mark.parametrize("total", [0, -1])
def test_a_refund_of_nothing_has_no_note(total: int, buyer: Client, processor: Processor) -> None:
    told(Client(), processor.pay(opened(buyer)))
    reference = TopUp.objects.get().payment_reference
    assert back(total, reference).status_code == 200
    assert back(500, "pi_of_somebody_else").status_code == 200
    assert not Refund.objects.exists()
