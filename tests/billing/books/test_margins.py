"""What the house earns: sums by day, model and tenant that agree with the ledger."""

from datetime import date, timedelta

from billing.books import margins
from billing.books.ledger import Kind
from tests.billing.open_books import Books

DAY = date(2026, 3, 10)  # the day of the books' requests
COST_PICO = 280_000_000
SUPPLIER_PICO = 200_000_000


def test_the_parts_sum_to_the_ledger(books: Books) -> None:
    # given
    for _ in range(3):
        books.served(supplier_pico=SUPPLIER_PICO)
    books.drain()
    # when
    earned = margins.read(since=DAY - timedelta(days=2), until=DAY)
    # then
    assert earned.total.revenue_pico == 3 * COST_PICO == -books.account(Kind.REVENUE)
    assert earned.total.cost_pico == books.account(Kind.COST_OF_SALES, supplier="acme")
    assert earned.total.margin_pico == 3 * (COST_PICO - SUPPLIER_PICO)
    for parts in (earned.by_model, earned.by_tenant, [row for _, row in earned.by_day]):
        assert sum(part.margin_pico for part in parts) == earned.total.margin_pico
    assert [day for day, _ in earned.by_day] == [DAY - timedelta(days=n) for n in (2, 1, 0)]
    assert [row.name for row in earned.by_model] == ["swift-1"]


def test_other_days_are_not_counted(books: Books) -> None:
    books.served(supplier_pico=SUPPLIER_PICO)
    books.drain()

    earned = margins.read(since=DAY + timedelta(days=1), until=DAY + timedelta(days=3))

    assert (earned.total.revenue_pico, earned.total.share, list(earned.by_model)) == (0, None, [])
    assert len(earned.by_day) == 3
