"""A provider's bill beside our books: what differs, by how much and why, and accepting it once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from billing.books import bill_comparison, reconciling
from billing.books.bill_comparison import Booked, Comparison
from billing.books.ledger import Kind
from billing.books.reconciling import Stated
from billing.errors import InvoiceRefused
from billing.models import ProviderBill, ProviderBillRow, Transfer
from billing.money import usd
from tests.billing.open_books import Books

DAY = date(2026, 3, 10)
NOW = datetime(2026, 4, 1, tzinfo=UTC)
COST = 280_000_000  # of 100 tokens in and 10 out


def line(
    *, inward: int = 100, outward: int = 10, cost: int | None = COST, model: str = "swift-1"
) -> ProviderBillRow:
    return ProviderBillRow(
        day=DAY,
        model=model,
        input_tokens=inward,
        output_tokens=outward,
        amount=None if cost is None else usd(cost),
    )


def bill(
    *rows: ProviderBillRow, file: bytes = b"a", stated_pico: int | None = None
) -> ProviderBill:
    for number, row in enumerate(rows, start=2):
        row.number = number
    return reconciling.store(
        supplier="acme",
        rows=rows,
        file_name="march.csv",
        file_format="test",
        file_hash=file * 32,
        stated=Stated(stated_pico),
        uploaded_by="ada",
        now=NOW,
    )


def serve(books: Books) -> None:
    """One request on the day of the bill, for which the supplier asks what it should."""
    books.served(supplier_pico=COST)
    books.drain()


def test_what_agrees_needs_no_look(books: Books) -> None:
    # given
    serve(books)
    # when
    (cell,) = bill_comparison.compare(bill(line()))
    # then
    assert (cell.more_tokens, cell.more_pico, cell.reasons) == (0, 0, [])


def test_a_difference_is_split_into_tokens_and_price(books: Books) -> None:
    # given
    serve(books)
    # when
    (cell,) = bill_comparison.compare(bill(line(outward=21, cost=400_000_000)))
    # then: 11 output tokens more at the 8,000,000 that one costs us
    assert (cell.more_tokens, cell.more_pico) == (11, 120_000_000)
    assert (cell.by_tokens_pico, cell.by_price_pico) == (88_000_000, 32_000_000)


def test_each_side_may_know_what_the_other_does_not(books: Books) -> None:
    # given
    serve(books)
    # when
    cells = {c.model: c for c in bill_comparison.compare(bill(line(model="other")))}
    # then
    assert cells["other"].reasons == ["nothing of it went through this gateway"]
    assert cells["swift-1"].reasons == ["the bill does not know it"]
    assert (cells["other"].more_pico, cells["swift-1"].more_pico) == (COST, -COST)


def test_the_same_tokens_at_another_price_say_so(books: Books) -> None:
    serve(books)
    (cell,) = bill_comparison.compare(bill(line(cost=COST + 1)))
    assert cell.reasons == ["same tokens, another price"]
    assert (cell.by_tokens_pico, cell.by_price_pico) == (0, 1)


def test_accepting_makes_us_owe_what_the_bill_says_once(books: Books) -> None:
    # given
    serve(books)
    uploaded = bill(line(cost=COST + 7))
    # when
    reconciling.accept(bill_id=uploaded.pk, accepted_by="ada", now=NOW)
    # then
    assert books.account(Kind.PROVIDER_PAYABLE, supplier="acme") == -(COST + 7)
    before = Transfer.objects.count()
    with pytest.raises(InvoiceRefused, match="before"):
        reconciling.accept(bill_id=uploaded.pk, accepted_by="ada", now=NOW)
    again = bill(line(cost=COST + 9), file=b"b")
    with pytest.raises(InvoiceRefused, match="covers some of these days"):
        reconciling.accept(bill_id=again.pk, accepted_by="ada", now=NOW)
    assert Transfer.objects.count() == before
    assert books.check() == {}


def test_a_bill_without_sums_is_compared_and_not_accepted(books: Books) -> None:
    serve(books)
    uploaded = bill(line(cost=None))
    (cell,) = bill_comparison.compare(uploaded)
    assert (cell.more_pico, cell.more_tokens, cell.reasons) == (None, 0, [])
    with pytest.raises(InvoiceRefused, match="names no sums"):
        reconciling.accept(bill_id=uploaded.pk, accepted_by="ada", now=NOW)


def test_the_same_file_twice_and_days_without_end_are_refused(books: Books) -> None:
    bill(line())
    with pytest.raises(InvoiceRefused, match="before"):
        bill(line())
    far = line()
    far.day = date(1999, 1, 1)
    with pytest.raises(InvoiceRefused, match="spans more"):
        bill(line(), far, file=b"c")
    with pytest.raises(InvoiceRefused, match="no row"):
        bill(file=b"d")
    assert ProviderBill.objects.count() == 1


@given(
    ours=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**15)),
    output_ppm=st.integers(0, 10**6),
    theirs=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**15)),
)
def test_the_two_causes_are_the_whole_difference(
    ours: tuple[int, int, int], output_ppm: int, theirs: tuple[int, int, int]
) -> None:
    cell = Comparison(
        day=DAY,
        model="m",
        ours=Booked(
            input_tokens=ours[0],
            output_tokens=ours[1],
            cost_pico=ours[2],
            output_cost_pico=ours[2] * output_ppm // 10**6,
        ),
        their_input_tokens=theirs[0],
        their_output_tokens=theirs[1],
        their_cost_pico=theirs[2],
    )
    assert cell.by_tokens_pico is not None
    assert cell.by_price_pico is not None
    assert cell.by_tokens_pico + cell.by_price_pico == theirs[2] - ours[2]


@pytest.mark.parametrize("is_late", [False, True])
def test_an_accepted_bill_ends_the_exposure_of_its_days_once(books: Books, is_late: bool) -> None:
    # given: one answer, and one request whose end nobody saw
    serve(books)
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.now_ms += 3_600_000
    assert books.desk.expire(request_id)
    books.drain()
    assert books.account(Kind.SUPPLIER_EXPOSURE, supplier="acme") == 10**9
    # when
    accepted = reconciling.accept(bill_id=bill(line(cost=COST + 5)).pk, accepted_by="ada", now=NOW)
    # then
    assert accepted.transfer is not None
    assert books.account(Kind.SUPPLIER_EXPOSURE, supplier="acme") == 0
    assert books.account(Kind.PROVIDER_PAYABLE, supplier="acme") == -(COST + 5)
    if is_late:
        books.settle(request_id, usage=(1, 1))
        books.drain()
        assert books.account(Kind.SUPPLIER_EXPOSURE, supplier="acme") == 0
    assert books.check() == {}


def test_a_day_that_is_not_over_cannot_be_accepted(books: Books) -> None:
    # given
    serve(books)
    uploaded = bill(line())
    before = Transfer.objects.count()
    # when / then: two hours after its end, in UTC
    for now in (
        datetime(2026, 3, 10, 23, 59, tzinfo=UTC),
        datetime(2026, 3, 11, 1, 59, tzinfo=UTC),
    ):
        with pytest.raises(InvoiceRefused, match="2026-03-10 is not over"):
            reconciling.accept(bill_id=uploaded.pk, accepted_by="ada", now=now)
    assert Transfer.objects.count() == before
    now = datetime(2026, 3, 11, 2, tzinfo=UTC)
    assert reconciling.accept(bill_id=uploaded.pk, accepted_by="ada", now=now).accepted_at == now


def test_what_is_in_quarantine_is_decided_before_its_day_is_accepted(books: Books) -> None:
    # given: what it costs us is not booked yet, and would be owed twice
    books.served(cost_pico=COST + 1_000_000, supplier_pico=COST)
    books.drain()
    uploaded = bill(line())
    with pytest.raises(InvoiceRefused, match="1 events of its days are in quarantine"):
        reconciling.accept(bill_id=uploaded.pk, accepted_by="ada", now=NOW)


@pytest.mark.parametrize(("stated_pico", "missing"), [(COST + 10**10, "0.01"), (COST - 1, "-0.0")])
def test_a_cent_that_no_row_tells_of_keeps_a_bill_open(
    books: Books, stated_pico: int, missing: str
) -> None:
    serve(books)
    uploaded = bill(line(), stated_pico=stated_pico)
    with pytest.raises(InvoiceRefused, match=f"states {missing}"):
        reconciling.accept(bill_id=uploaded.pk, accepted_by="ada", now=NOW)
    told = bill(line(), stated_pico=COST, file=b"b")
    assert reconciling.accept(bill_id=told.pk, accepted_by="ada", now=NOW).accepted_by == "ada"


def test_two_bills_of_one_day_at_once_are_accepted_once(
    books: Books, transactional_db: None
) -> None:
    # given
    serve(books)
    bills = [bill(line(cost=COST + 7), file=name).pk for name in (b"a", b"b")]

    def accepted(pk: int) -> str:
        try:
            reconciling.accept(bill_id=pk, accepted_by="ada", now=NOW)
        except InvoiceRefused as refusal:
            return str(refusal)
        finally:
            connection.close()
        return ""

    # when
    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(accepted, bills))
    # then
    assert answers == ["", "an accepted bill covers some of these days already"]
    assert books.account(Kind.PROVIDER_PAYABLE, supplier="acme") == -(COST + 7)
