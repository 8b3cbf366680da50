"""The FOCUS export where what is paid is not the list price: a discount, a plan that changes within
the month, a rebate. Exact sums of every row, on the tenant's own calendar."""

from datetime import UTC, date, datetime, timedelta

import pytest

from billing.corrections import rebates
from billing.corrections.volume_tiers import Tier
from billing.invoicing import calendar_months, focus
from billing.limits import quotas
from billing.models import Invoice, PriceList, PriceVersion, Tenant
from billing.prices import lists as price_lists
from billing.prices import plans
from tests.billing.invoicing.test_invoices import (
    APRIL,
    SECOND_OF_APRIL,
    THIRD_OF_MAY,
    Office,
    office,
)
from tests.billing.open_books import Books

__all__ = ["office"]

MARCH_9 = datetime(2026, 3, 9, tzinfo=UTC)
MS = timedelta(milliseconds=1)
COSTS = ("BilledCost", "ContractedCost", "ListCost", "ListUnitPrice", "ContractedUnitPrice")
USED = (1_000_000, 200_000)  # at the list price $2 and $1.60


def plan_with(slug: str, change_ppm: int) -> PriceList:
    made = PriceList.objects.create(slug=slug, name=slug.title())
    price_lists.set_rule(
        price_list=made, pattern="acme/", change_ppm=change_ppm, actor="op", now=MARCH_9
    )
    return made


def assign(books: Books, plan: PriceList | None, begins: datetime | None = None) -> None:
    plans.assign(tenant=books.tenant, plan=plan, actor="op", now=MARCH_9, begins_at=begins)


def used(books: Books, at: datetime, *, hold_nano: int = 10**10) -> None:
    """One request of that moment, at what the tenant pays then."""
    versions = PriceVersion.objects.filter(during__contains=at, sku__code=books.desk.sku)
    lists = plans.lists_of(books.tenant.pk, at)
    version = versions.filter(price_list__in=lists).first() or versions.get(price_list=None)
    books.desk.now_ms, books.desk.price = int(at.timestamp() * 1000), version.pk
    cost = USED[0] * version.input_pico + USED[1] * version.output_pico
    books.served(usage=USED, hold_nano=hold_nano, cost_pico=cost)
    books.drain()


def costs(invoice: Invoice) -> dict[str, tuple[str, ...]]:
    """By what the row is of, with its first price version as 0, and so on."""
    versions: dict[str, int] = {}
    found = {}
    for row in focus.of_invoice(invoice):
        number = versions.setdefault(row["SkuPriceId"], len(versions))
        name = f"{row['SkuMeter']} {number}" if row["SkuMeter"] else row["ChargeCategory"]
        found[name] = tuple(_plain(row[column]) for column in COSTS)
    return found


def _plain(number: str) -> str:
    return f"{float(number):.12g}" if number else ""


def test_a_discount_a_change_of_plan_within_the_month_and_a_rebate(office: Office) -> None:
    # given 20 % off, from the 20th 50 % off with a tenth back, and a request on either side
    books, at = office.books, datetime(2026, 3, 20, tzinfo=UTC)
    startup, scale = plan_with("startup", -200_000), plan_with("scale", -500_000)
    assign(books, startup)
    assign(books, scale, at)
    tenth = (Tier(None, 100_000),)
    rebates.set_scale(
        plan=scale,
        mode="volume",
        scale=tenth,
        from_month=date(2026, 3, 1),
        actor="op",
        now=MARCH_9,
    )
    used(books, at - MS)
    used(books, at)
    # when
    march = office.issue()
    (rebate,) = rebates.post_month(date(2026, 3, 1), actor="op", now=SECOND_OF_APRIL)
    used(books, datetime(2026, 4, 20, tzinfo=UTC))
    april = office.issue(APRIL, THIRD_OF_MAY)
    # then: a dollar of March is credit; 20 % tax, at list on what the list would have been
    assert (rebate.spent_pico, rebate.due_pico) == (4_680_000_000_000, 468_000_000_000)
    assert costs(march) == {
        "input tokens 0": ("1.6", "1.6", "2", "2e-06", "1.6e-06"),
        "output tokens 0": ("1.28", "1.28", "1.6", "8e-06", "6.4e-06"),
        "input tokens 1": ("1", "1", "2", "2e-06", "1e-06"),
        "output tokens 1": ("0.8", "0.8", "1.6", "8e-06", "4e-06"),
        "Credit": ("-1", "-1", "-1", "", ""),
        "Tax": ("0.74", "0.736", "1.24", "", ""),
    }
    assert costs(april) == {
        "input tokens 0": ("1", "1", "2", "2e-06", "1e-06"),
        "output tokens 0": ("0.8", "0.8", "1.6", "8e-06", "4e-06"),
        "Adjustment": ("-0.47", "-0.47", "-0.47", "", ""),
        "Tax": ("0.27", "0.266", "0.626", "", ""),
    }
    for invoice in (march, april):
        rows = list(focus.of_invoice(invoice))
        assert focus.total(rows) * 100 == invoice.total_cents
    assert books.check() == {}


def test_a_charge_that_was_cut_has_no_list_price_and_costs_what_is_billed(office: Office) -> None:
    # given
    assign(office.books, plan_with("startup", -200_000))
    used(office.books, MARCH_9 + timedelta(days=1), hold_nano=1_234_567_890)
    # when
    found = costs(office.issue())
    # then
    assert found["requests, charged in part 0"] == ("1.23", "1.23", "1.23", "", "")


def test_a_margin_is_above_the_list(office: Office) -> None:
    # given
    assign(office.books, plan_with("small", 200_000))
    used(office.books, MARCH_9 + timedelta(days=1))
    # when
    found = costs(office.issue())
    # then
    assert found["input tokens 0"] == ("2.4", "2.4", "2", "2e-06", "2.4e-06")


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
def test_a_plan_from_the_first_of_a_month_is_on_that_month_s_invoice(
    office: Office, zone: str
) -> None:
    # given half off from 1 April on the tenant's own calendar, and requests around it
    books = office.books
    quotas.change_time_zone(
        tenant=books.tenant, zone=zone, actor="op", now=MARCH_9, client=books.desk.client
    )
    books.adopt_epoch()
    march, april = calendar_months.month(2026, 3, zone), calendar_months.month(2026, 4, zone)
    assert plans.moment_of("2026-04-01", zone) == april.start
    assign(books, plan_with("half", -500_000), april.start)
    for at in (april.start - MS, april.start, april.start + MS):
        used(books, at)
    # when
    issued = [
        office.issue(march, march.end + timedelta(days=2)),
        office.issue(april, april.end + timedelta(days=2)),
    ]
    # then
    assert [int(invoice.usage_pico) for invoice in issued] == [3_600_000_000_000] * 2
    first, second = (costs(invoice) for invoice in issued)
    assert first["input tokens 0"] == ("2", "2", "2", "2e-06", "2e-06")
    assert second["input tokens 0"] == ("2", "2", "4", "2e-06", "1e-06")
    assert Tenant.objects.get().time_zone == zone
    assert books.check() == {}
