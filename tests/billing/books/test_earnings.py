"""What suppliers earned, against the ledger."""

from datetime import timedelta

from billing.books import earnings, payouts
from tests.billing.open_books import Books


def test_statement_chargeback_and_ledger_agree_to_the_pico_dollar(books: Books) -> None:
    # given: the supplier of the books' events is acme; it charges less, nothing, or more.
    for number in range(12):
        books.served(usage=(100 + number, 10), supplier_pico=number * 30_000_001)
    books.served(billable=False, supplier_pico=5_000_001, outcome="upstream_error")
    books.served(hold_nano=200_000, supplier_pico=7)
    books.drain()
    since = books.events()[0].occurred_at
    span = {"since": since, "until": since + timedelta(hours=1)}
    # when
    (statement,) = earnings.by_day("acme", **span)
    buyers = earnings.by_buyer("acme", **span)
    # then
    assert statement.credit_pico == payouts.owed_pico("acme") > 0
    assert statement.paid_pico == -books.account("revenue")
    house = -books.account("revenue") - (
        books.account("cost_of_sales", supplier="acme")
        + books.account("provider_waste", supplier="acme")
    )
    assert statement.house_pico == house
    assert sum(row.credit_pico for row in buyers) == statement.credit_pico
    assert {row.tenant_id for row in buyers} == {books.tenant.pk}
    assert earnings.by_day("", **span) == []
    assert earnings.by_day("acme", since=span["until"], until=span["since"]) == []
