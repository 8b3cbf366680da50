"""Prices by the hour of the UTC day: half open, past midnight too, exact at their moment."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from hypothesis import given

from billing.errors import PriceRefused
from billing.models import PriceVersion
from billing.prices import price_books
from billing.prices import versions as prices
from billing.prices.price_spans import Dated, minute_of, spans_of
from billing.rates import ALL_DAY, MINUTES_PER_DAY, Window
from billing.rating import Price
from tests import listed
from tests.billing.prices.test_prices import MARCH, MAY, SKU, publish

DAY = timedelta(days=1)
NIGHT = Window(22 * 60, 6 * 60)
minutes = st.integers(0, MINUTES_PER_DAY - 1)
windows = (
    st.tuples(minutes, minutes).filter(lambda pair: pair[0] != pair[1]).map(lambda p: Window(*p))
)


def at(hour: int, minute: int = 0, *, day: datetime = MAY) -> datetime:
    return day + timedelta(hours=hour, minutes=minute)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("when", "output_pico"),
    [
        (at(5, 59), 300_000),
        (at(6), 600_000),
        (at(21, 59), 600_000),
        (at(22), 300_000),
        (at(24), 300_000),
    ],
)
def test_hours_hold_from_their_first_minute_to_before_their_last(
    when: datetime, output_pico: int
) -> None:
    # given
    publish()
    publish(window=NIGHT, output_pico=300_000)
    # when / then
    assert [p.output_pico for p in listed.price_at(SKU, when)] == [output_pico]
    assert [p.output_pico for p in prices.in_force(when)[SKU]] == [output_pico]


@pytest.mark.django_db
def test_outside_its_hours_a_sku_without_a_price_for_all_day_has_none() -> None:
    # when
    publish(window=Window(8 * 60, 18 * 60))
    # then
    assert len(listed.price_at(SKU, at(8))) == 1
    assert listed.price_at(SKU, at(18)) == ()


@pytest.mark.django_db
def test_the_snapshot_s_book_changes_at_the_minute_and_ends_at_its_horizon() -> None:
    # given
    publish()
    publish(window=NIGHT, output_pico=300_000)
    publish(at(12, day=MAY + DAY), output_pico=700_000)
    loaded, until = at(20), at(20) + 2 * DAY
    # when
    book = price_books.books(loaded, until)[SKU]

    # then
    def output_at(when: datetime) -> list[int]:
        return [p.output_pico for p in book.at((), int(when.timestamp() * 1000))]

    assert output_at(at(21, 59)) == [600_000]
    assert output_at(at(22)) == [300_000]
    assert output_at(at(6, day=MAY + DAY)) == [600_000]
    assert output_at(at(12, day=MAY + DAY)) == [700_000]
    assert output_at(at(22, day=MAY + DAY)) == [300_000]
    # A clock that went backwards stays at the first price; beyond the horizon nothing is sold.
    assert output_at(at(3)) == [600_000]
    assert output_at(until + timedelta(minutes=1)) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    "window",
    [
        Window(60, 60),
        Window(-1, 60),
        Window(0, 1440),
        Window(1.5, 60),  # type: ignore[arg-type]
        Window(True, 60),
    ],
)
def test_hours_that_make_no_sense_are_refused(window: Window) -> None:
    with pytest.raises(PriceRefused, match="minute"):
        publish(window=window)
    assert PriceVersion.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    "other",
    [Window(5 * 60, 7 * 60), Window(21 * 60, 23 * 60), Window(0, 60), Window(7 * 60, 23 * 60)],
)
def test_hours_that_overlap_with_others_are_refused(other: Window) -> None:
    # given
    publish(window=NIGHT)
    # when / then
    with pytest.raises(PriceRefused, match="overlap with version .*22:00-06:00 UTC"):
        publish(MAY, window=other)
    assert PriceVersion.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("other", "fits"),
    [(Window(5 * 60, 7 * 60), False), (Window(0, 1), False), (Window(6 * 60, 22 * 60), True)],
)
def test_postgres_refuses_overlapping_hours_whoever_asks(other: Window, fits: bool) -> None:
    # given
    row = publish(window=NIGHT)
    # when
    row.pk, row.during = None, DateTimeTZRange(MAY, None)
    row.from_minute, row.to_minute = other
    # then
    if fits:
        row.save()
    else:
        with pytest.raises(IntegrityError, match="price_no_overlap"), transaction.atomic():
            row.save()


@pytest.mark.django_db
def test_the_price_of_an_hour_is_the_same_in_a_month_with_a_clock_change_and_on_a_leap_day() -> (
    None
):
    # given
    publish(datetime(2027, 1, 1, tzinfo=UTC))
    publish(datetime(2027, 1, 1, tzinfo=UTC), window=Window(60, 120), output_pico=300_000)
    berlin = ZoneInfo("Europe/Berlin")
    # when: 28 March 2027 has no 02:30 in Berlin, 31 October 2027 has two.
    moments = [
        (datetime(2027, 3, 28, 1, 59, tzinfo=berlin), 600_000),
        (datetime(2027, 3, 28, 3, 0, tzinfo=berlin), 300_000),
        (datetime(2027, 10, 31, 2, 30, fold=0, tzinfo=berlin), 600_000),
        (datetime(2027, 10, 31, 2, 30, fold=1, tzinfo=berlin), 300_000),
        (datetime(2028, 2, 29, 1, 0, tzinfo=UTC), 300_000),
        (datetime(2028, 2, 29, 2, 0, tzinfo=UTC), 600_000),
    ]
    # then
    assert [(m, listed.price_at(SKU, m)[0].output_pico) for m, _ in moments] == moments


def price(version: int, **changes: Any) -> Price:
    rates = dict.fromkeys(
        ("input_pico", "cache_read_pico", "cache_write_5m_pico", "cache_write_1h_pico",
         "output_pico", "reasoning_pico"), version
    )  # fmt: skip
    return Price(version=version, sku=SKU, **{**rates, **changes})


@given(windows, st.integers(0, 3 * 24 * 60), st.integers(0, 24 * 60))
def test_spans_say_the_same_as_asking_each_minute(window: Window, start: int, later: int) -> None:
    # given
    since = MARCH + timedelta(minutes=start)
    rows = [Dated(price(1), MARCH, None, ALL_DAY), Dated(price(2), MARCH, None, window)]
    # when
    spans = spans_of(rows, since, since + 2 * DAY)
    # then
    asked = since + timedelta(minutes=later)
    told = [span.prices for span in spans if span.from_ms <= asked.timestamp() * 1000][-1]
    assert [p.version for p in told] == [2 if window.contains(minute_of(asked)) else 1]


@given(windows, windows)
def test_windows_overlap_where_some_minute_is_in_both(one: Window, other: Window) -> None:
    both = any(one.contains(m) and other.contains(m) for m in range(MINUTES_PER_DAY))
    assert one.overlaps(other) == other.overlaps(one) == both
