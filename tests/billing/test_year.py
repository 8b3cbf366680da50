"""A simulated year, drawn from a printed seed: the books, the documents and the exports agree.

`TOKENHOUSE_YEAR_REQUESTS=40 TOKENHOUSE_YEAR_SEED=7` make it longer, or another one."""

import os
from collections.abc import Iterator
from decimal import Decimal

import pytest
import redis
from django.db import connection
from django.db.models import Sum

from billing.books import ledger
from billing.books.ledger import AccountKey, Kind
from billing.invoicing import coverage, focus, receivables
from billing.models import (
    AdjustmentNote,
    CreditGrant,
    CreditNote,
    Entry,
    Invoice,
    NumberSeries,
    ProviderBill,
    ProviderBillRow,
    TopUp,
    UsageEvent,
)
from billing.money import PICO_PER_CENT
from tests.billing.open_books import Books
from tests.billing.year import House
from tests.billing.year_sellers import Seller

REQUESTS = int(os.environ.get("TOKENHOUSE_YEAR_REQUESTS", "1"))
SEED = int(os.environ.get("TOKENHOUSE_YEAR_SEED", "20270101"))
COVERS_SQL = """
    SELECT u.id, count(i.id) FROM billing_usageevent u
    LEFT JOIN billing_coveredspan s ON u.tenant_id = s.tenant_id AND s.is_live
        AND u.occurred_at >= s.occurred_from AND u.occurred_at < s.occurred_until
        AND u.transfer_id > s.posted_after AND u.transfer_id <= s.posted_upto
    LEFT JOIN billing_invoice i ON i.id = s.invoice_id AND i.state = 'finalised'
    WHERE u.state = 'posted' GROUP BY u.id HAVING count(i.id) <> 1
"""


@pytest.fixture
def house(redis_client: redis.Redis, transactional_db: None) -> House:
    print(f"TOKENHOUSE_YEAR_SEED={SEED} TOKENHOUSE_YEAR_REQUESTS={REQUESTS}")  # noqa: T201
    return House(redis_client, seed=SEED, months=12, requests=REQUESTS)


def test_a_year_of_everything_adds_up_to_the_last_digit(house: House) -> None:
    # when
    house.live()
    # then
    assert UsageEvent.objects.count() == 12 * 12 * (REQUESTS + 1)
    assert not UsageEvent.objects.filter(state="quarantined").exists()
    with connection.cursor() as cursor:
        cursor.execute(COVERS_SQL)
        assert cursor.fetchall() == []
    for books in house.books:
        assert_documents_are_the_ledger(books)
        assert_accounts_are_what_documents_say(books)
    assert_exports_are_the_documents()
    assert_numbers_have_no_gaps()
    for seller in house.sellers:
        assert_every_row_of_a_bill_is_accounted_for(seller)
        assert_we_owe_what_bills_ask(seller)
    assert house.books[0].check() == {}


def issued(books: Books) -> Iterator[Invoice]:
    yield from Invoice.objects.filter(tenant=books.tenant, state=Invoice.State.FINALISED)


def assert_documents_are_the_ledger(books: Books) -> None:
    """Σ documents + open = Σ ledger."""
    entries = Entry.objects.filter(transfer__tenant=books.tenant, account__kind=Kind.REVENUE)
    revenue = -int(entries.aggregate(total=Sum("amount_pico"))["total"])
    credited = CreditNote.objects.filter(invoice__tenant=books.tenant).aggregate(
        total=Sum("net_cents")
    )["total"]
    on_documents = sum(invoice.charged_pico for invoice in issued(books))
    on_documents -= (credited or 0) * PICO_PER_CENT
    still_open = coverage.open_pico(books.tenant)
    assert on_documents + still_open == revenue
    # Everything is on a document by now.
    assert still_open == 0
    for invoice in issued(books):
        lines = list(invoice.lines.all())
        assert sum(int(line.exact_pico) for line in lines) == invoice.charged_pico
        assert sum(line.amount_cents for line in lines) == invoice.subtotal_cents
    notes = AdjustmentNote.objects.filter(tenant=books.tenant).values_list("number", flat=True)
    printed = [
        line.sku for invoice in issued(books) for line in invoice.lines.filter(kind="adjustment")
    ]
    assert sorted(printed) == sorted(notes)


def assert_accounts_are_what_documents_say(books: Books) -> None:
    """What is owed of tax, and what of credit, is what the documents leave open."""
    open_of = [receivables.open_of(invoice) for invoice in issued(books)]
    receivable = books.account(Kind.RECEIVABLE, tenant=True)
    assert receivable == sum(each.tax_cents for each in open_of) * PICO_PER_CENT
    used = UsageEvent.objects.filter(tenant=books.tenant).aggregate(t=Sum("tenant_cost_pico"))["t"]
    granted = CreditGrant.objects.filter(tenant=books.tenant).aggregate(t=Sum("amount_pico"))["t"]
    assert books.account(Kind.TENANT_CREDIT, tenant=True) == used - int(granted or 0)
    taxes = Entry.objects.filter(transfer__tenant=books.tenant, account__kind=Kind.TAX_PAYABLE)
    owed = -int(taxes.aggregate(t=Sum("amount_pico"))["t"] or 0)
    invoiced = sum(invoice.tax_cents for invoice in issued(books))
    notes = CreditNote.objects.filter(invoice__tenant=books.tenant)
    invoiced -= notes.aggregate(t=Sum("tax_cents"))["t"] or 0
    for topup in TopUp.objects.filter(tenant=books.tenant, state="paid"):
        invoiced += topup.tax_cents - sum(each.tax_cents for each in topup.refunds.all())
    assert owed == invoiced * PICO_PER_CENT


def assert_exports_are_the_documents() -> None:
    for invoice in Invoice.objects.filter(state=Invoice.State.FINALISED):
        rows = list(focus.of_invoice(invoice))
        assert focus.total(rows) * 100 == invoice.total_cents
        exact = sum((Decimal(row["x_ExactCost"] or 0) for row in rows), Decimal())
        assert exact == Decimal(invoice.charged_pico).scaleb(-12)
    for note in CreditNote.objects.all():
        assert focus.total(focus.of_credit_note(note)) * 100 == -note.total_cents


def assert_every_row_of_a_bill_is_accounted_for(seller: Seller) -> None:
    """Σ rows = the bill, each row with its fate and, where it is not used, with a reason."""
    bills = list(ProviderBill.objects.filter(supplier=seller.name))
    assert {bill.pk for bill in bills} == seller.lines.keys()
    for bill in bills:
        rows = list(bill.rows.all())
        assert len(rows) == seller.lines[bill.pk]
        assert sum(int(row.cost_pico or 0) for row in rows) == bill.stated_pico
        for row in rows:
            assert row.state != ProviderBillRow.State.OPEN
            assert row.state == ProviderBillRow.State.USED or (row.why and row.note)


def assert_we_owe_what_bills_ask(seller: Seller) -> None:
    """What is owed to a seller is the sum of the last bill of each month, whatever was booked, and
    what it cost us is the same."""
    assert len(seller.owed_pico) == 13
    owed = sum(seller.owed_pico.values())
    assert ledger.balance(AccountKey(Kind.PROVIDER_PAYABLE, supplier=seller.name)) == -owed
    assert ledger.balance(AccountKey(Kind.COST_OF_SALES, supplier=seller.name)) == owed
    assert ledger.balance(AccountKey(Kind.SUPPLIER_EXPOSURE, supplier=seller.name)) == 0


def assert_numbers_have_no_gaps() -> None:
    for series in NumberSeries.objects.all():
        prefix = f"{series}-"
        numbers = [
            number
            for model in (Invoice, CreditNote, AdjustmentNote)
            for number in model.objects.filter(number__startswith=prefix).values_list(
                "number", flat=True
            )
        ]
        if numbers:
            assert sorted(numbers) == [f"{prefix}{n:06d}" for n in range(1, series.last + 1)]
