"""How figures are written: costs to the last digit, everything else no longer than it needs."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from gateway.console import figures
from gateway.console.board import sparkline
from gateway.console.overview.forecast import month_end
from gateway.console.overview.periods import period_of

NOW = datetime(2026, 11, 23, 14, 2, tzinfo=UTC)
T = figures.THIN_SPACE


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (153_228_000, f"$0.000{T}153{T}228"),
        (25_321_200_000, f"$0.025{T}321{T}200"),
        (1, f"$0.000{T}000{T}000{T}001"),
        (0, "$0"),
        (1_204_180_000_000_000, "$1,204.180"),
        (-5_000_000_000_000, "−$5"),
    ],
)
def test_a_cost_keeps_every_digit(pico: int, text: str) -> None:
    assert figures.usd_exact(pico) == text


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (1_900_570_000_000_000, "$1,900.57"),
        (995_000_000_000, "$1.00"),
        (189_029_654_000, "$0.189"),
        (2_370_000_000, "$0.00237"),
        (0, "$0"),
        (153_228, f"$0.000{T}000{T}153"),
    ],
)
def test_a_sum_is_rounded_for_a_glance(pico: int, text: str) -> None:
    assert figures.usd(pico) == text


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (4_998_665_683_487, "$4.99"),
        (5 * 10**12, "$5.00"),
        (9_900_000_000, "$0.0099"),
        (-1, "−$0.000\u2009000\u2009000\u2009001"),
    ],
)
def test_what_is_left_is_never_overstated(pico: int, text: str) -> None:
    assert figures.usd_left(pico) == text


@pytest.mark.parametrize(
    ("pico", "text"), [(37_500, "$0.0375"), (150_000, "$0.15"), (15_000_000, "$15.00")]
)
def test_a_price_keeps_every_digit_and_at_least_cents(pico: int, text: str) -> None:
    assert figures.per_million_exact(pico) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (0.62, "62"), (0.003, "<1"), (0.9998, "99.98"), (0.99999, "99.99"), (1, "100")],
)
def test_only_nothing_is_zero_and_only_everything_is_a_hundred(share: float, text: str) -> None:
    assert figures.percent(share) == f"{text}{T}%"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (4_096, "<1"), (97_600_000, "98"), (1_234_567_890, "1,235")]
)
def test_memory_is_in_megabytes(count: int, text: str) -> None:
    assert figures.megabytes(count) == f"{text}{T}MB"


@pytest.mark.parametrize(
    ("value", "text"), [(9_999, "9,999"), (41_200, f"41.2{T}k"), (1_920_000_000, f"1.92{T}B")]
)
def test_a_large_count_has_three_digits_and_a_letter(value: int, text: str) -> None:
    assert figures.compact(value) == text


def test_an_age_takes_the_largest_unit() -> None:
    assert figures.age(NOW - timedelta(hours=3, minutes=59), NOW) == "3 h"


def test_a_spark_holds_each_price_until_the_next() -> None:
    # given a price that fell half way through
    steps = [
        ((NOW - timedelta(days=10)).isoformat(), 200.0),
        ((NOW - timedelta(days=5)).isoformat(), 100.0),
    ]

    # when
    path = sparkline.path(steps, since=NOW - timedelta(days=10), now=NOW)

    # then it is drawn with level and upright strokes only
    assert path == "M0.0 2.0H44.0V22.0H88"


def test_a_spark_of_a_young_price_begins_where_it_was_made() -> None:
    # given
    steps = [((NOW - timedelta(days=10)).isoformat(), 200.0)]

    # then: two thirds into a window of 30 days
    path = sparkline.path(steps, since=NOW - timedelta(days=30), now=NOW)
    assert path == "M58.7 12.0H88"


def test_a_month_is_compared_with_as_much_of_the_month_before() -> None:
    period = period_of("month", NOW)

    assert (period.label, period.before_label) == ("November", "October")
    assert period.before_until - period.before_since == NOW - period.since
    assert len(period.chart_days) == 30


def test_a_forecast_is_the_spend_so_far_and_the_mean_of_full_days() -> None:
    # given ten full days of $1 each, and nothing yet today
    by_day = {date(2026, 11, day): 10**12 for day in range(13, 23)}

    # when
    forecast = month_end(by_day, today=date(2026, 11, 23), last_day=date(2026, 11, 30))

    # then today counts as a usual day, and equal days have no spread
    assert forecast is not None
    assert forecast.total_pico == 18 * 10**12
    assert forecast.spread_pico == 0


def test_two_days_of_spend_are_too_few_for_a_forecast() -> None:
    by_day = {date(2026, 11, day): 10**12 for day in (21, 22)}

    assert month_end(by_day, today=date(2026, 11, 23), last_day=date(2026, 11, 30)) is None


def test_a_price_of_a_float_board_figure_is_read_exactly() -> None:
    assert figures.per_million(Decimal(560_000)) == "$0.56"
