"""What the house earns: sums by day, model and tenant that agree with the ledger."""

from datetime import UTC, date, datetime, timedelta
from itertools import product

from billing.books import margins
from billing.books.ledger import Kind
from billing.models import EarnedDay, Tenant, UsageDay
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


def test_the_greatest_are_named_and_no_more_is_kept(books: Books) -> None:
    # given: 15 tenants of 15 models; the last only costs, and two move as much
    tenants = [Tenant.objects.create(slug=f"t{n}", name=f"T{n:02}") for n in range(15)]
    moved = [10 * (n + 1) for n in range(15)]
    moved[13] = moved[12]
    UsageDay.objects.bulk_create(
        UsageDay(
            tenant=tenant,
            day=DAY,
            sku="acme/swift-1",
            supplier="acme",
            model=f"m{n:02}",
            last_at=datetime(2026, 3, 10, tzinfo=UTC),
            cost_pico=0 if n == 14 else moved[n],
            supplier_cost_pico=moved[n] if n == 14 else 1,
        )
        for n, tenant in enumerate(tenants)
    )
    greatest = [14, 12, 13, 11, 10, 9, 8, 7, 6, 5]
    # when
    earned = margins.read(since=DAY, until=DAY)
    # then
    assert [row.name for row in earned.by_tenant] == [f"T{n:02}" for n in greatest]
    assert [row.name for row in earned.by_model] == [f"m{n:02}" for n in greatest]
    assert earned.total.revenue_pico == sum(moved[:14])
    assert earned.total.cost_pico == moved[14] + 14


def test_what_is_read_does_not_grow_with_keys_and_sellers(books: Books) -> None:
    # given
    for key, supplier in product((5, 6, 7), ("acme", "other")):
        books.desk.key = key
        books.served(supplier=supplier, supplier_pico=SUPPLIER_PICO)
    books.drain()
    # then
    (row,) = EarnedDay.objects.all()
    assert (row.cost_pico, row.supplier_cost_pico) == (6 * COST_PICO, 6 * SUPPLIER_PICO)
    assert UsageDay.objects.count() == 6

    assert books.check() == {}
