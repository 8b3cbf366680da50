"""Money outside usage: numbered, a line of the next invoice, taxed there, counted in rebates."""

import json
from datetime import UTC, date, datetime

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, transaction

from billing.books.ledger import Kind
from billing.corrections import adjustments
from billing.corrections.adjustments import Cause
from billing.credit import balances as credit
from billing.credit import tax
from billing.errors import CreditRefused, InvoiceRefused
from billing.invoicing import coverage, focus, pdf, receivables, untaxed
from billing.models import (
    AdjustmentNote,
    AlertChannel,
    AlertDelivery,
    BillingProfile,
    CreditGrant,
    InvoiceLine,
    Receipt,
    Transfer,
    UntaxedCredit,
)
from billing.money import PICO_PER_CENT
from billing.payments import returns, topups
from billing.payments.facts import Paid, Refunded
from billing.prices import versions as prices
from gateway.alerts import texts as alert_texts
from tests.billing.invoicing.test_invoice_pdf import text_of
from tests.billing.invoicing.test_invoices import (
    APRIL,
    SECOND_OF_APRIL,
    SELLER,
    THIRD_OF_MAY,
    USD,
    Office,
    account,
    office,
)

__all__ = ["office"]

MARCH = date(2026, 3, 1)
TENTH_OF_APRIL = datetime(2026, 4, 10, tzinfo=UTC)


def adjust(office: Office, pico: int, *, cause: str = Cause.CORRECTION) -> AdjustmentNote:
    return adjustments.post(
        tenant=office.books.tenant,
        cause=cause,
        amount_pico=pico,
        months={MARCH: pico},
        reason="wrong price",
        created_by="ada",
        now=TENTH_OF_APRIL,
    )


def test_what_is_charged_more_is_due_and_taxed_on_the_next_invoice(office: Office) -> None:
    # given: $11 used, $1 of it covered; paid
    office.use(11 * USD)
    march = office.issue()
    office.pay(march, march.total_cents)
    # when
    note = adjust(office, -3 * USD)
    office.use(2 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    april = office.issue(APRIL, THIRD_OF_MAY)
    # then
    assert (note.number, note.charged_pico) == ("ADJ-2026-000001", 3 * USD)
    assert (april.usage_pico, april.adjusted_pico) == (2 * USD, 3 * USD)
    assert (april.net_cents, april.tax_cents, april.total_cents) == (500, 100, 600)
    line = april.lines.get(kind=InvoiceLine.Kind.ADJUSTMENT)
    assert (line.sku, line.amount_cents) == (note.number, 300)
    office.pay(april, 600, "bank-2")
    assert account(office, Kind.TENANT_CREDIT) == 0
    assert account(office, Kind.RECEIVABLE) == 0
    assert coverage.open_pico(office.books.tenant) == 0
    assert office.books.check() == {}


def test_what_is_given_back_lessens_the_next_invoice_and_its_tax(office: Office) -> None:
    # given
    office.use(11 * USD)
    march = office.issue()
    office.pay(march, march.total_cents)
    # when
    adjust(office, 3 * USD)
    office.use(5 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    april = office.issue(APRIL, THIRD_OF_MAY)
    # then
    assert (april.subtotal_cents, april.net_cents, april.tax_cents) == (200, 200, 40)
    office.pay(april, 240, "bank-2")
    assert account(office, Kind.TENANT_CREDIT) == 0


def test_what_is_given_back_beyond_the_usage_is_carried_over_as_credit(office: Office) -> None:
    # given
    office.use(11 * USD)
    march = office.issue()
    office.pay(march, march.total_cents)
    adjust(office, 8 * USD)
    office.use(5 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    # when
    april = office.issue(APRIL, THIRD_OF_MAY)
    office.use(4 * USD, at=datetime(2026, 5, 20, tzinfo=UTC))
    may = office.issue(
        type(APRIL)(APRIL.end, datetime(2026, 6, 1, tzinfo=UTC)), datetime(2026, 6, 3, tzinfo=UTC)
    )
    # then
    assert (april.subtotal_cents, april.covered_cents, april.total_cents) == (-300, -300, 0)
    assert (may.subtotal_cents, may.covered_cents, may.net_cents) == (400, 300, 100)
    for invoice in (april, may):
        rows = list(focus.of_invoice(invoice))
        assert focus.total(rows) * 100 == invoice.total_cents
    assert "Carried over to your credit" in text_of(pdf.of_an_invoice(april, team_names={}))


def test_a_note_is_on_one_invoice_and_in_focus_and_printed(office: Office) -> None:
    # given
    note = adjust(office, 2_500_000_000)
    office.use(4 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    # when
    april = office.issue(APRIL, THIRD_OF_MAY)
    # then
    (row,) = [r for r in focus.of_invoice(april) if r["ChargeCategory"] == "Adjustment"]
    assert (row["BilledCost"], row["x_ExactCost"]) == ("0.00", "-0.002500000000")
    assert note.number in row["ChargeDescription"]
    shown = text_of(pdf.of_an_adjustment(note))
    assert "Adjustment ADJ-2026-000001" in shown
    assert "$0.0025" in shown
    with pytest.raises(DatabaseError), transaction.atomic():
        AdjustmentNote.objects.update(reason="other")


@pytest.mark.parametrize(
    ("pico", "months", "reason"),
    [(5, {MARCH: 4}, "x"), (5, {date(2026, 3, 2): 5}, "x"), (5, {MARCH: 5}, " "), (0, {}, "x")],
)
def test_an_adjustment_that_does_not_add_up_moves_nothing(
    office: Office, pico: int, months: dict[date, int], reason: str
) -> None:
    # given
    before = (CreditGrant.objects.count(), Transfer.objects.count())
    # when
    with pytest.raises(CreditRefused):
        adjustments.post(
            tenant=office.books.tenant,
            cause=Cause.OTHER,
            amount_pico=pico,
            months=months,
            reason=reason,
            created_by="ada",
            now=TENTH_OF_APRIL,
        )
    # then
    assert (CreditGrant.objects.count(), Transfer.objects.count()) == before
    assert adjust(office, 5).number == "ADJ-2026-000001"


def test_the_tenant_s_channels_are_told_once(office: Office) -> None:
    # given
    channel = AlertChannel.objects.create(
        tenant=office.books.tenant,
        kind="webhook",
        target="https://hooks.example/a",
        created_by="ada",
        created_at=TENTH_OF_APRIL,
    )
    # when
    note = adjust(office, -3 * USD)
    # then
    delivery = AlertDelivery.objects.get()
    assert (delivery.adjustment, delivery.channel) == (note, channel)
    assert json.loads(alert_texts.webhook_of(delivery)) == {
        "id": f"adjustment-{note.pk}-{channel.pk}",
        "type": "adjustment.issued",
        "number": note.number,
        "cause": "correction",
        "reason": "wrong price",
        "charged_usd": "3",
        "occurred_at": TENTH_OF_APRIL.isoformat(),
    }
    subject, text = alert_texts.mail_of(delivery, console_url="https://console.example")
    assert subject == f"$3 charged: price correction {note.number}"
    assert "wrong price" in text


def test_rebates_count_corrections_and_not_themselves(office: Office) -> None:
    # given
    adjust(office, 2 * USD)
    adjust(office, 1 * USD, cause=Cause.SERVICE)
    adjust(office, 7 * USD, cause=Cause.REBATE)
    # then
    assert adjustments.given_pico(office.books.tenant, MARCH) == 3 * USD
    assert adjustments.given_pico(office.books.tenant, date(2026, 2, 1)) == 0


def test_tax_of_a_credited_invoice_that_was_paid_is_credit_and_not_stranded(
    office: Office,
) -> None:
    # given
    office.use(11 * USD)
    invoice = office.issue()
    office.pay(invoice, 1_200)
    # when
    note = office.credit_note(invoice, 333)
    # then
    assert (note.net_cents, note.tax_cents) == (333, 67)
    assert account(office, Kind.RECEIVABLE) == 0
    assert account(office, Kind.TAX_PAYABLE) == -133 * PICO_PER_CENT
    assert account(office, Kind.TENANT_CREDIT) == -400 * PICO_PER_CENT
    assert "$4.00 was added" in text_of(pdf.of_a_credit_note(note))
    # and: usage that this money covers is taxed, for its tax was given back
    office.use(4 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    april = office.issue(APRIL, THIRD_OF_MAY)
    assert (april.covered_cents, april.untaxed_cents, april.total_cents) == (400, 400, 80)
    office.pay(april, 80, "bank-2")
    assert account(office, Kind.TENANT_CREDIT) == 0
    assert account(office, Kind.RECEIVABLE) == 0
    assert focus.total(focus.of_invoice(april)) * 100 == 80


@pytest.mark.parametrize("paid", [1, 599, 600, 601, 1_000, 1_199])
@pytest.mark.parametrize("credited", [1, 333, 1_000, 1_100])
def test_whatever_is_paid_before_a_credit_note_no_tax_is_stranded(
    office: Office, paid: int, credited: int
) -> None:
    # given
    office.use(11 * USD)
    invoice = office.issue()
    office.pay(invoice, paid)
    # when
    office.credit_note(invoice, credited)
    left = receivables.open_cents(invoice)
    if left:
        office.pay(invoice, left, "bank-2")
    # then
    assert receivables.open_cents(invoice) == 0
    assert account(office, Kind.RECEIVABLE) == 0
    net, owed = invoice.credit_notes.get().net_cents, invoice.credit_notes.get().tax_cents
    assert account(office, Kind.TAX_PAYABLE) == -(200 - owed) * PICO_PER_CENT
    kept = paid + left - (1_200 - net - owed)
    assert account(office, Kind.TENANT_CREDIT) == -kept * PICO_PER_CENT


def test_credit_bought_untaxed_is_taxed_where_it_is_used_after_taxed_credit(
    office: Office,
) -> None:
    # given: $1 that was a gift, $5 bought before there was a profile
    bought = credit.grant(
        tenant=office.books.tenant,
        amount_pico=5 * USD,
        reason="bought",
        created_by="ada",
        kind=CreditGrant.Kind.PAID,
    )
    untaxed.mark(bought, 5 * USD)
    # when
    office.use(3 * USD)
    march = office.issue()
    office.use(4 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    april = office.issue(APRIL, THIRD_OF_MAY)
    # then
    assert (march.covered_cents, march.untaxed_cents, march.tax_cents) == (300, 200, 40)
    assert (april.covered_cents, april.untaxed_cents) == (300, 300)
    assert (april.net_cents, april.tax_cents, april.total_cents) == (100, 80, 180)
    assert "had borne none" in text_of(pdf.of_an_invoice(april, team_names={}))


def test_credit_bought_before_a_profile_says_that_it_is_taxed_later(office: Office) -> None:
    # given
    BillingProfile.objects.all().delete()
    terms = {"net_cents": 500, "created_by": "ada", "now": TENTH_OF_APRIL}
    topup = topups.start(tenant=office.books.tenant, **terms)  # type: ignore[arg-type]
    fact = Paid(key=str(topup.key), total_cents=500, currency="usd", reference="pi_1")
    # when
    topups.paid(fact, seller=SELLER, now=TENTH_OF_APRIL)
    # then
    receipt = Receipt.objects.get()
    assert (receipt.tax_cents, receipt.total_cents) == (0, 500)
    assert "No tax is charged yet" in text_of(pdf.of_a_receipt(receipt))
    assert UntaxedCredit.objects.get().amount_pico == 5 * USD
    returns.refunded(
        Refunded(reference="pi_1", refunded_cents=200), seller=SELLER, now=TENTH_OF_APRIL
    )
    upto = coverage.last_transfer(office.books.tenant)
    assert untaxed.granted_pico(office.books.tenant.pk, upto_transfer=upto) == 3 * USD


def test_a_sku_is_rounded_once_however_many_prices_it_had(office: Office) -> None:
    # given: twelve prices in a month, $0.005 at each
    for number in range(12):
        price = prices.publish(
            sku_code="acme/swift-1",
            input_pico=2_500_000 + number,
            cache_read_pico=1,
            cache_write_5m_pico=1,
            cache_write_1h_pico=1,
            output_pico=5_000_000_000,
            reasoning_pico=1,
            valid_from=datetime(2026, 3, 10, number, tzinfo=UTC),
            source="test",
            recorded_by="test",
        )
        office.books.desk.price = price.pk
        office.books.served(usage=(0, 1), hold_nano=10**8, cost_pico=5_000_000_000)
    office.books.drain()
    # when
    invoice = office.draft()
    # then
    assert invoice.usage_pico == 60_000_000_000
    assert (invoice.lines.count(), invoice.subtotal_cents) == (12, 6)
    assert sum(line.amount_cents for line in invoice.lines.all()) == 6


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({"is_reverse_charge": True}, "VAT id"),
        ({"is_reverse_charge": True, "tax_id": "none"}, "VAT id"),
        ({"is_reverse_charge": True, "tax_id": "DE123", "tax_ppm": 1}, "charge none"),
        ({"tax_note": "Reverse-Charge applies"}, "choose reverse charge"),
    ],
)
def test_reverse_charge_needs_the_buyer_s_vat_id(terms: dict[str, object], why: str) -> None:
    facts = {"tax_ppm": 0, "tax_id": "", "is_reverse_charge": False, "tax_note": "", **terms}
    assert why in tax.refusal(**facts)  # type: ignore[arg-type]


def test_reverse_charge_is_printed_and_refused_without_a_vat_id(office: Office) -> None:
    # given
    office.use(11 * USD)
    profile = BillingProfile.objects.get()
    profile.tax_ppm, profile.is_reverse_charge = 0, True
    with pytest.raises(IntegrityError), transaction.atomic():
        profile.save()
    with pytest.raises(ValidationError):
        profile.full_clean()
    profile.tax_id = "none"
    profile.save()
    draft = office.draft()
    with pytest.raises(InvoiceRefused, match="VAT id"):
        office.finalise(draft)
    # when
    BillingProfile.objects.update(tax_id="DE123456789")
    invoice = office.finalise(draft)
    # then
    assert invoice.tax_cents == 0
    assert "Reverse charge" in text_of(pdf.of_an_invoice(invoice, team_names={}))
    assert SECOND_OF_APRIL.date() < invoice.due_on  # type: ignore[operator]
