"""The odd rows and odd bills that sellers send, one kind at a time: what becomes of each, and that
its rows come to the bill."""

import io
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Final

import pytest

from billing.books import bill_comparison, bill_rows, reconciling
from billing.books.ledger import Kind
from billing.books.reconciling import Stated
from billing.errors import InvoiceRefused
from billing.models import ProviderBill, ProviderBillRow, Transfer
from billing.money import PICO_PER_USD
from providers.imports import bill_files
from tests.billing.open_books import Books

State = ProviderBillRow.State
NOW: Final = datetime(2026, 5, 1, tzinfo=UTC)
CENT: Final = 10**10
COST: Final = 280_000_000  # of 100 tokens in and 10 out, $0.00028
HEAD: Final = "date,model,input_tokens,output_tokens,cost,currency"
SOLD: Final = "2026-03-10,swift-1,100,10,0.00028,USD"


def bill(*rows: str, stated_pico: int | None = None, period: tuple[date, ...] = ()) -> ProviderBill:
    text = "\n".join((HEAD, *rows)).encode()
    file_format, read = bill_files.read(io.BytesIO(text), {}, now=NOW)
    return reconciling.store(
        supplier="acme",
        rows=read,
        file_name="bill.csv",
        file_format=file_format,
        file_hash=sha256(text).digest(),
        stated=Stated(stated_pico, period),
        uploaded_by="ada",
        now=NOW,
    )


def fates(made: ProviderBill) -> list[tuple[str, str]]:
    return list(made.rows.order_by("number").values_list("state", "why"))


def decided(made: ProviderBill, state: str, *numbers: int) -> int:
    return bill_rows.decide(
        bill_id=made.pk,
        numbers=numbers or None,
        state=state,
        note="asked them",
        decided_by="ada",
        now=NOW,
    )


def accepted(made: ProviderBill, *, instead: bool = False) -> ProviderBill:
    return reconciling.accept(bill_id=made.pk, accepted_by="ada", now=NOW, instead=instead)


def owed(books: Books) -> int:
    return -books.account(Kind.PROVIDER_PAYABLE, supplier="acme")


@pytest.fixture
def sold(books: Books) -> Books:
    """One request, for which the seller asks what it should."""
    books.served(supplier_pico=COST)
    books.drain()
    return books


@pytest.mark.parametrize(
    ("row", "state", "why"),
    [
        ("2026-03-10,swift-1,-100,-10,-0.00028,USD", State.USED, ""),
        ("2026-03-10,swift-1,0,0,-0.5,usd", State.USED, ""),
        ("2026-03-10,vat,0,0,19.00,USD", State.USED, ""),
        ("2026-03-10,unheard-of-2,5,5,1.00,USD", State.USED, ""),
        ("2026-03-10,,0,0,5.00,USD", State.OPEN, "model is not a model: ''"),
        ("2026-03-10,Minimum commitment,0,0,5,USD", State.OPEN, "model is not a model"),
        (",platform-fee,0,0,5.00,USD", State.OPEN, "names no day"),
        ("03/31/2026,swift-1,1,1,5.00,USD", State.OPEN, "names no day"),
        ("Total,,,,123.45,USD", State.OPEN, "input_tokens is missing; model is not a model"),
        ("2026-03-10,swift-1,1,1,5.00,EUR", State.OPEN, "in EUR, without a rate"),
        ("2026-03-10,swift-1,1,1,987654321.12,IDR", State.OPEN, "in IDR, without a rate"),
        ("2026-03-10,swift-1,1,1,5.00,E\x00R", State.OPEN, "currency is none"),
        ("2026-03-10,swift-1,1,1,5.00,euros and cents", State.OPEN, "currency is none"),
        ('2026-03-10,swift-1,1,1,"1,234",USD', State.OPEN, "cost is not a sum of money"),
        ("2026-03-10,swift-1,1,1,,USD", State.OPEN, "names no sum"),
        ("2026-03-10,swift-1,1,1", State.OPEN, "4 cells for 6 columns"),
        ("0001-01-01T00:00:00+14:00,swift-1,1,1,x,USD", State.OPEN, "cost is not a sum"),
        (",,,,,", State.LEFT_OUT, "is empty"),
        (' ,"", , , , ', State.LEFT_OUT, "is empty"),
        (",,0,0,0.00,USD", State.LEFT_OUT, "model is not a model"),
        (SOLD, State.OPEN, "the same as line 2"),
    ],
)
@pytest.mark.django_db
def test_each_kind_of_row_has_its_fate(row: str, state: str, why: str) -> None:
    if row.startswith("0001"):
        with pytest.raises(InvoiceRefused, match="spans more than"):
            bill(SOLD, row)
        return
    # when
    made = bill(SOLD, row)
    # then
    first, (became, said) = fates(made)
    assert first == (State.USED, "")
    assert became == state
    assert said.startswith(why)
    assert bool(said) == bool(why)
    parts = bill_rows.account(made)
    assert sum(part.rows for part in parts.values()) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2026-03-10,vat,0,0,19.00,USD", "a sum without tokens: a fee, a tax"),
        ("2026-03-10,promotion,0,0,-3.00,USD", "a sum without tokens: a fee, a tax"),
        ("2026-03-10,unheard-of-2,5,5,1.00,USD", "nothing of it went through this gateway"),
    ],
)
def test_what_no_request_of_ours_asked_for_is_a_difference_with_a_name(
    row: str, reason: str, sold: Books
) -> None:
    # given
    made = bill(SOLD, row)
    # when
    cells = {cell.model: cell for cell in bill_comparison.compare(made)}
    # then
    other = cells[row.split(",")[1]]
    assert [why.startswith(reason) for why in other.reasons] == [True]
    assert other.by_tokens_pico == (PICO_PER_USD if other.their_tokens else 0)
    accepted(made)
    assert owed(sold) == COST + (other.more_pico or 0)


def test_rows_told_twice_are_owed_twice_only_by_decision(sold: Books) -> None:
    # given: twice in dollars, and twice in euros
    euros = "2026-03-10,swift-1,100,10,0.0005,EUR"
    made = bill(SOLD, SOLD, euros, euros)
    assert fates(made)[3] == (State.OPEN, "the same as line 4; in EUR, without a rate")
    # when
    bill_rows.state_rate(
        bill_id=made.pk, currency="EUR", pico_per_unit=2 * PICO_PER_USD, day=NOW.date(),
        source="ECB", stated_by="ada", now=NOW,
    )  # fmt: skip
    # then
    assert fates(made) == [
        (State.USED, ""),
        (State.OPEN, "the same as line 2"),
        (State.USED, ""),
        (State.OPEN, "the same as line 4"),
    ]
    with pytest.raises(InvoiceRefused, match="2 rows are neither"):
        accepted(made)
    decided(made, State.LEFT_OUT, 3)
    decided(made, State.USED, 5)
    accepted(made)
    assert owed(sold) == COST + 2 * 10**9
    assert made.rows.get(number=5).decided_by == "ada"


def test_only_a_row_told_twice_is_used_by_decision(sold: Books) -> None:
    made = bill(SOLD, SOLD, ",swift-1,1,1,5.00,USD", "2026-03-10,swift-1,-1,2,1,USD")
    for numbers in ((4,), (5,), (3, 4), ()):
        with pytest.raises(InvoiceRefused, match="only a row that says the same"):
            decided(made, State.USED, *numbers)
    assert [state for state, _ in fates(made)] == [State.USED] + [State.OPEN] * 3


def test_a_currency_of_large_figures_is_exact_to_its_last_digit(sold: Books) -> None:
    # given
    made = bill(SOLD, "2026-03-10,swift-1,0,0,987654321987.12345678901234567891,IDR")
    # when: one is $0.000061
    bill_rows.state_rate(
        bill_id=made.pk, currency="IDR", pico_per_unit=61_000_000, day=NOW.date(),
        source="BI", stated_by="ada", now=NOW,
    )  # fmt: skip
    # then
    row = made.rows.get(number=3)
    assert row.asked == "987654321987.12345678901234567891 IDR"
    assert row.cost_pico == 60_246_913_641_214_530_864


@pytest.mark.parametrize("rest", [35 * 10**8, -35 * 10**8, 500 * 100 * CENT])
def test_what_only_the_document_states_is_a_row_when_somebody_says_what_it_is(
    rest: int, sold: Books
) -> None:
    # given: a rounding to cents, up or down, or a minimum commitment that no row tells of
    made = bill(SOLD, ",fee,0,0,0.10,USD", stated_pico=COST + 10 * CENT + rest)
    before = Transfer.objects.count()

    def carried(note: str = "rounded on the document") -> int:
        return bill_rows.carry_rest(bill_id=made.pk, note=note, decided_by="ada", now=NOW)

    # when
    with pytest.raises(InvoiceRefused, match="once every row is decided"):
        carried()
    decided(made, State.CARRIED, 3)
    with pytest.raises(InvoiceRefused, match="what the rest is"):
        carried(" ")
    with pytest.raises(InvoiceRefused, match="beyond what its rows"):
        accepted(made)
    assert Transfer.objects.count() == before
    assert carried() == rest
    # then
    assert fates(made)[2] == (State.CARRIED, bill_rows.NO_ROW)
    with pytest.raises(InvoiceRefused, match="or none"):
        carried()
    accepted(made)
    assert owed(sold) == COST + 10 * CENT + rest
    with pytest.raises(InvoiceRefused, match="accepted before"):
        carried()


def test_a_bill_that_is_issued_again_counts_instead_of_the_first(sold: Books) -> None:
    # given: the first one asks a dollar too much, and an exposure ended with it
    request_id = sold.desk.placed(hold_nano=1_000_000)
    sold.desk.now_ms += 3_600_000
    assert sold.desk.expire(request_id)
    sold.drain()
    accepted(bill(SOLD, "2026-03-10,fee,0,0,1.00,USD"))
    assert owed(sold) == COST + PICO_PER_USD
    again = bill(SOLD, "2026-03-10,fee,0,0,0.25,USD")
    # when
    with pytest.raises(InvoiceRefused, match="covers some of these days"):
        accepted(again)
    accepted(again, instead=True)
    # then
    assert owed(sold) == COST + PICO_PER_USD // 4
    assert sold.account(Kind.SUPPLIER_EXPOSURE, supplier="acme") == 0
    # and a third one counts instead of both, also where it says what is booked
    third = bill(SOLD)
    accepted(third, instead=True)
    assert owed(sold) == COST
    with pytest.raises(InvoiceRefused, match="accepted before"):
        accepted(third, instead=True)
    assert sold.check() == {}


def test_a_bill_of_fewer_days_counts_instead_of_none(sold: Books) -> None:
    accepted(bill(SOLD, "2026-03-11,fee,0,0,1.00,USD"))
    before = owed(sold)
    with pytest.raises(InvoiceRefused, match="covers days that this one does not"):
        accepted(bill("2026-03-11,fee,0,0,2.00,USD"), instead=True)
    assert owed(sold) == before


@pytest.mark.parametrize("offset", ["-07:00", "+09:00", "+05:45", "Z"])
def test_months_of_a_seller_in_another_zone_share_no_day_and_are_owed_once(
    offset: str, books: Books
) -> None:
    """What is served around the month's end of the seller, who bills it by its own midnight."""
    # given: a request an hour before and one an hour after that midnight
    midnight = datetime.fromisoformat(f"2026-04-01T00:00:00{offset}").astimezone(UTC)
    for hours in (-1, 1):
        books.desk.now_ms = int((midnight + timedelta(hours=hours)).timestamp() * 1000)
        books.served(supplier_pico=COST)
        books.drain()
    march = bill(f"2026-03-31T23:00:00{offset},swift-1,100,10,0.00028,USD")
    april = bill(f"2026-04-01T01:00:00{offset},swift-1,100,10,0.00028,USD")
    # when
    assert (march.last_day, april.first_day) == (date(2026, 3, 31), date(2026, 4, 1))
    for each in (march, april):
        accepted(each)
    # then
    assert owed(books) == 2 * COST


def test_days_that_no_row_tells_of_are_of_the_bill_that_names_them(books: Books) -> None:
    """A seller that forgot a day at the edge of its month, and one whose midnight is later."""
    # given: an hour after March's end in UTC, which the seller has in March
    books.desk.now_ms = int(datetime(2026, 4, 1, 1, tzinfo=UTC).timestamp() * 1000)
    books.served(supplier_pico=COST)
    books.drain()
    march = bill(
        "2026-03-31T18:00:00-07:00,swift-1,100,10,0.00028,USD",
        period=(date(2026, 3, 1), date(2026, 3, 31)),
    )
    accepted(march)
    assert owed(books) == 2 * COST
    # when its rows begin later than what it bills
    late = "2026-04-20,vat,0,0,0.00,USD"
    gap = bill(late)
    assert (gap.first_day, reconciling.unbilled_pico(gap)) == (date(2026, 4, 20), COST)
    april = bill(late, ",,,,,", period=(date(2026, 4, 1), date(2026, 4, 30)))
    # then
    assert (april.first_day, april.last_day) == (date(2026, 4, 1), date(2026, 4, 30))
    assert reconciling.unbilled_pico(april) == 0
    reconciling.accept(bill_id=april.pk, accepted_by="ada", now=datetime(2026, 5, 2, tzinfo=UTC))
    assert owed(books) == COST
