"""Invoices: every charge once, exact sums, whole cents, and books that square when paid."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

import pytest
from django.db import DatabaseError, transaction

from billing.books.ledger import Kind
from billing.credit import balances as credit
from billing.errors import InvoiceRefused
from billing.invoicing import calendar_months, documents, receivables
from billing.invoicing.calendar_months import Period
from billing.models import (
    BillingProfile,
    CreditGrant,
    CreditNote,
    Entry,
    Invoice,
    InvoiceLine,
    Payment,
    Tenant,
    Transfer,
)
from billing.money import PICO_PER_CENT
from tests.billing import desk as desks
from tests.billing.open_books import Books

USD = 10**12
MARCH = calendar_months.month(2026, 3, "UTC")
APRIL = calendar_months.month(2026, 4, "UTC")
SECOND_OF_APRIL = datetime(2026, 4, 2, 9, tzinfo=UTC)
THIRD_OF_MAY = datetime(2026, 5, 3, 9, tzinfo=UTC)
SELLER = {"legal_name": "Tokenhouse Ltd", "address": "1 Mint Street", "country": "IE"}
LineKind = InvoiceLine.Kind


@dataclass
class Office:
    """Whoever writes the invoices of one tenant."""

    books: Books

    def draft(self, period: Period = MARCH, now: datetime = SECOND_OF_APRIL) -> Invoice:
        tenant = Tenant.objects.get(pk=self.books.tenant.pk)
        return documents.draft(tenant=tenant, period=period, created_by="ada", now=now)

    def finalise(self, invoice: Invoice, now: datetime = SECOND_OF_APRIL) -> Invoice:
        return documents.finalise(invoice_id=invoice.pk, seller=SELLER, actor="ada", now=now)

    def issue(self, period: Period = MARCH, now: datetime = SECOND_OF_APRIL) -> Invoice:
        return self.finalise(self.draft(period, now), now)

    def pay(self, invoice: Invoice, cents: int, reference: str = "bank-1") -> Payment:
        return receivables.record_payment(
            invoice_id=invoice.pk,
            amount_cents=cents,
            reference=reference,
            received_on=date(2026, 4, 10),
            created_by="ada",
            now=SECOND_OF_APRIL,
        )

    def credit_note(self, invoice: Invoice, cents: int) -> CreditNote:
        return receivables.issue_credit_note(
            invoice_id=invoice.pk,
            net_cents=cents,
            reason="slow week",
            created_by="ada",
            now=SECOND_OF_APRIL,
        )

    def use(self, pico: int, *, at: datetime | None = None) -> None:
        """One drained request that costs the tenant exactly this much."""
        assert pico % 4_000_000 == 0
        self.books.desk.now_ms = int((at or desks.at(desks.NOON_MS)).timestamp() * 1000)
        self.books.served(
            usage=(pico // 4_000_000, pico // 16_000_000), hold_nano=pico // 1000 + 1000
        )
        self.books.drain()


@pytest.fixture
def office(books: Books) -> Office:
    """A tenant that may go $1,000 below zero after its first dollar; 20 % VAT."""
    credit.change_terms(
        tenant=books.tenant, actor="ada", now=SECOND_OF_APRIL, credit_limit_pico=1_000 * USD
    )
    BillingProfile.objects.create(
        tenant=books.tenant,
        legal_name="Aurora GmbH",
        address="Hauptstraße 1\n10115 Berlin",
        country="DE",
        tax_name="VAT",
        tax_ppm=200_000,
    )
    return Office(books)


def account(office: Office, kind: str) -> int:
    tenant = kind in (Kind.TENANT_CREDIT, Kind.RECEIVABLE)
    return office.books.account(kind, tenant=tenant)


def counts() -> tuple[int, ...]:
    return tuple(
        model.objects.count() for model in (Transfer, Entry, CreditGrant, CreditNote, Payment)
    )


def test_lines_say_tokens_and_rates_and_add_up_to_the_usage(office: Office) -> None:
    # given
    office.books.served(usage=(1_000_000, 200_000), hold_nano=10**10)
    office.books.served(usage=(500_000, 100_001), hold_nano=10**10)
    office.books.drain()
    # when
    invoice = office.draft()
    # then
    rows = invoice.lines.values_list("unit", "quantity", "rate_pico", "exact_pico", "amount_cents")
    assert list(rows) == [
        ("input tokens", 1_500_000, 2_000_000, 3 * USD, 300),
        ("output tokens", 300_001, 8_000_000, 2_400_008_000_000, 240),
    ]
    assert invoice.usage_pico == 5_400_008_000_000
    # $1 of credit was there before.
    assert (invoice.subtotal_cents, invoice.covered_cents, invoice.net_cents) == (540, 100, 440)
    assert (invoice.tax_cents, invoice.total_cents) == (88, 528)


def test_a_paid_invoice_leaves_the_account_as_if_nothing_had_been_owed(office: Office) -> None:
    # given
    office.use(5_400_000_000_000)
    office.use(16_000_000)
    invoice = office.issue()
    # when
    office.pay(invoice, 300, "first")
    office.pay(invoice, invoice.total_cents - 300, "second")
    # then
    assert receivables.open_cents(invoice) == 0
    assert account(office, Kind.TENANT_CREDIT) == 0
    assert account(office, Kind.RECEIVABLE) == 0
    assert account(office, Kind.TAX_PAYABLE) == -invoice.tax_cents * PICO_PER_CENT
    assert account(office, Kind.CASH) == invoice.total_cents * PICO_PER_CENT
    assert office.books.balance().left_pico == 1_000 * USD
    assert office.books.check() == {}


def test_usage_within_credit_leaves_nothing_due_and_no_tax(office: Office) -> None:
    # given
    office.use(992_000_000)
    # when
    invoice = office.issue()
    # then
    assert (invoice.net_cents, invoice.tax_cents, invoice.total_cents) == (0, 0, 0)
    assert invoice.transfer is None
    assert account(office, Kind.TENANT_CREDIT) == 992_000_000 - USD


def test_a_charge_posted_late_is_on_the_next_invoice_once(office: Office) -> None:
    # given
    office.use(2 * USD)
    first = office.issue()
    # when
    office.use(3 * USD)
    office.use(5 * USD, at=datetime(2026, 4, 20, tzinfo=UTC))
    second = office.draft(APRIL, THIRD_OF_MAY)
    # then
    assert first.usage_pico == 2 * USD
    assert second.usage_pico == 8 * USD
    late = second.lines.filter(kind=LineKind.LATE)
    assert sum(int(line.exact_pico) for line in late) == 3 * USD
    assert {line.service_end.month for line in late} == {3}


def test_a_charge_after_the_period_stays_off_it(office: Office) -> None:
    # given
    office.use(2 * USD)
    office.use(4 * USD, at=APRIL.start)
    # when
    first = office.issue()
    second = office.issue(APRIL, THIRD_OF_MAY)
    # then
    assert (first.usage_pico, second.usage_pico) == (2 * USD, 4 * USD)


def test_a_draft_is_made_again_until_it_is_finalised(office: Office) -> None:
    # given
    office.use(2 * USD)
    first = office.draft()
    office.use(2 * USD)
    # when
    second = office.draft()
    # then
    assert (first.pk, second.usage_pico) == (second.pk, 4 * USD)
    office.finalise(second)
    with pytest.raises(InvoiceRefused, match="covers this period already"):
        office.draft()


def test_numbers_have_no_gaps(office: Office) -> None:
    # given
    office.use(2 * USD)
    march = office.draft()
    # when
    with transaction.atomic():
        office.finalise(march)
        transaction.set_rollback(True)
    april = office.draft(APRIL, THIRD_OF_MAY)
    # then
    with pytest.raises(InvoiceRefused, match="earlier period"):
        office.finalise(april, THIRD_OF_MAY)
    assert office.finalise(march).number == "INV-2026-000001"
    assert office.issue(APRIL, THIRD_OF_MAY).number == "INV-2026-000002"


def test_a_charge_cut_at_its_hold_is_a_line_of_its_own(office: Office) -> None:
    # given
    office.books.served(usage=(1_000_000, 0), hold_nano=10**10)
    office.books.served(usage=(1_000_000, 0), hold_nano=10**9)
    office.books.drain()
    # when
    invoice = office.draft()
    # then
    rows = invoice.lines.values_list("kind", "unit", "quantity", "rate_pico", "amount_cents")
    assert list(rows) == [
        (LineKind.USAGE, "input tokens", 1_000_000, 2_000_000, 200),
        (LineKind.PARTIAL, "requests, charged in part", 1, None, 100),
    ]


def test_a_void_invoice_is_replaced_by_a_draft_of_the_same_charges(office: Office) -> None:
    # given
    office.use(3_000_016_000_000)
    before = {kind: account(office, kind) for kind in Kind}
    wrong = office.issue()
    # when
    successor = documents.void(
        invoice_id=wrong.pk, reason="wrong address", voided_by="ada", now=SECOND_OF_APRIL
    )
    # then
    assert {kind: account(office, kind) for kind in Kind} == before
    assert (successor.usage_pico, successor.total_cents) == (wrong.usage_pico, wrong.total_cents)
    right = office.finalise(successor)
    assert (right.number, right.replaces_id) == ("INV-2026-000002", wrong.pk)
    office.use(4 * USD, at=APRIL.start)
    assert office.issue(APRIL, THIRD_OF_MAY).usage_pico == 4 * USD


def test_a_credit_note_gives_credit_and_takes_tax_back(office: Office) -> None:
    # given
    office.use(11 * USD)
    invoice = office.issue()
    # when
    note = office.credit_note(invoice, 333)
    # then
    assert (note.number, note.net_cents, note.tax_cents) == ("CN-2026-000001", 333, 67)
    assert receivables.open_cents(invoice) == 1_200 - 400
    assert account(office, Kind.TENANT_CREDIT) == 10 * USD - 333 * PICO_PER_CENT
    assert account(office, Kind.RECEIVABLE) == (200 - 67) * PICO_PER_CENT
    office.pay(invoice, 800)
    assert account(office, Kind.TENANT_CREDIT) == 0
    assert account(office, Kind.RECEIVABLE) == 0


@pytest.mark.parametrize("cents", [0, -5, 1_101])
def test_a_credit_note_beyond_the_invoice_is_refused(office: Office, cents: int) -> None:
    # given
    office.use(11 * USD)
    invoice = office.issue()
    before = counts()
    # when
    with pytest.raises(InvoiceRefused):
        office.credit_note(invoice, cents)
    # then
    assert counts() == before


def test_a_payment_told_twice_is_booked_once(office: Office) -> None:
    # given
    office.use(11 * USD)
    invoice = office.issue()
    # when
    first, second = office.pay(invoice, 600), office.pay(invoice, 600)
    # then
    assert first == second
    before = counts()
    with pytest.raises(InvoiceRefused, match="already"):
        office.pay(invoice, 500)
    with pytest.raises(InvoiceRefused, match="600 cents are open"):
        office.pay(invoice, 601, "bank-2")
    assert counts() == before


def test_an_issued_invoice_cannot_be_rewritten(office: Office) -> None:
    # given
    office.use(11 * USD)
    invoice = office.issue()
    line = invoice.lines.get(unit="input tokens")
    # then
    for change in (
        lambda: Invoice.objects.filter(pk=invoice.pk).update(tax_cents=0),
        lambda: Invoice.objects.filter(pk=invoice.pk).delete(),
        lambda: InvoiceLine.objects.filter(pk=line.pk).update(amount_cents=0),
        lambda: InvoiceLine.objects.filter(pk=line.pk).delete(),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()


def test_without_a_name_and_address_nothing_is_issued(office: Office) -> None:
    # given
    office.use(11 * USD)
    BillingProfile.objects.all().delete()
    draft = office.draft()
    before = counts()
    # when
    with pytest.raises(InvoiceRefused, match="billing profile"):
        office.finalise(draft)
    # then
    assert counts() == before
    assert Invoice.objects.get().state == Invoice.State.DRAFT


def test_a_period_that_goes_on_is_not_invoiced(office: Office) -> None:
    with pytest.raises(InvoiceRefused, match="not ended"):
        office.draft(MARCH, datetime(2026, 3, 31, 23, 59, tzinfo=UTC))


@pytest.mark.parametrize(
    ("year", "month", "zone", "hours"),
    [
        (2026, 3, "Europe/Berlin", 31 * 24 - 1),
        (2026, 10, "Europe/Berlin", 31 * 24 + 1),
        (2028, 2, "UTC", 29 * 24),
        (2026, 4, "Australia/Lord_Howe", 30 * 24 + 0.5),
        (2026, 12, "Asia/Kathmandu", 31 * 24),
    ],
)
def test_a_month_is_as_long_as_the_tenant_s_calendar_says(
    year: int, month: int, zone: str, hours: float
) -> None:
    # when
    period = calendar_months.month(year, month, zone)
    # then
    assert (period.end - period.start).total_seconds() == hours * 3600
    assert calendar_months.last_month(period.end, zone) == period
