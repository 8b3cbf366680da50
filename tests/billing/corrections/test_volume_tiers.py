"""Tiers and rounding against the numbers that billing engines publish of theirs."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from billing.corrections import volume_tiers
from billing.corrections.volume_tiers import Tier, TiersRefused
from billing.money import cents, half_away

# Amounts in tenths of the unit of money, quantities in tenths, so that 0.5 is a whole number.
LAGO_GRADUATED = (Tier(100, 10, 20), Tier(200, 5, 30), Tier(None, 5, 30))
LAGO_VOLUME = (Tier(1_000, 20, 100), Tier(2_000, 10, 0), Tier(None, 5, 500))


@pytest.mark.parametrize(
    ("quantity", "amount"), [(0, 2), (1, 12), (10, 102), (11, 110), (12, 115), (21, 163)]
)
def test_lago_s_graduated_tiers(quantity: int, amount: int) -> None:
    assert volume_tiers.graduated(quantity * 10, LAGO_GRADUATED) == amount * 10


@pytest.mark.parametrize(
    ("tenths", "hundredths"),
    [(10, 1_200), (1_000, 21_000), (1_005, 10_050), (1_010, 10_100), (2_000, 20_000),
     (3_000, 20_000)],
)  # fmt: skip
def test_lago_s_volume_tiers(tenths: int, hundredths: int) -> None:
    scaled = [Tier(t.up_to, t.unit, t.flat * 10) for t in LAGO_VOLUME]
    assert volume_tiers.volume(tenths, scaled) == hundredths


def test_openmeter_s_deltas_are_the_difference_of_two_totals() -> None:
    ten_each = (Tier(None, 10),)
    assert volume_tiers.graduated(8, ten_each) - volume_tiers.graduated(5, ten_each) == 3 * 10
    by_volume = (Tier(15, 10), Tier(None, 5))
    assert (volume_tiers.volume(15, by_volume), volume_tiers.volume(16, by_volume)) == (150, 80)


@pytest.mark.parametrize(
    ("count", "units", "dollars"),
    [
        (volume_tiers.graduated, (10, 8, 5), 107),
        (volume_tiers.graduated, (100, 50, 10), 600),
        (volume_tiers.volume, (100, 50, 10), 150),
    ],
)
def test_fifteen_thousand_units_over_three_tiers(
    count: Any, units: tuple[int, int, int], dollars: int
) -> None:
    first, second, third = units  # thousandths of a dollar
    scale = (Tier(1_000, first), Tier(10_000, second), Tier(None, third))
    assert count(15_000, scale) == dollars * 1_000


@pytest.mark.parametrize(
    ("numerator", "denominator", "whole"),
    [
        (4_734_075, 1_000, 4_734),  # 4.4556 x 10.625 = 47.34075 dollars: 47.34
        (4_734_075, 100_000, 47),  # the same in a currency without cents
        (20_000 * 29, 30, 19_333),  # $200.00, the last 29 of 30 days
        (20_000 * 29 * 25, 30 * 100, 4_833),  # and its tax of 25 %
        (16_000 * 29, 30, 15_467),
        (16_000 * 29 * 25, 30 * 100, 3_867),
        (2_999 * 6, 7, 2_571),  # weekly $29.99, six of seven days
        (2_999 * 6 * 2_333, 7 * 10_000, 600),
        (5, 10, 1),
        (-5, 10, -1),
        (-4, 10, 0),
    ],
)
def test_published_rounding_and_proration(numerator: int, denominator: int, whole: int) -> None:
    assert half_away(numerator, denominator) == whole


def test_four_seats_at_59_99() -> None:
    assert cents(4 * 59_990_000_000_000) == 23_996


@pytest.mark.parametrize(
    "scale",
    [
        (),
        (Tier(10, 1),),
        (Tier(None, 1), Tier(None, 1)),
        (Tier(10, 1), Tier(10, 1), Tier(None, 1)),
        (Tier(10, 1), Tier(5, 1), Tier(None, 1)),
        (Tier(0, 1), Tier(None, 1)),
        (Tier(-1, 1), Tier(None, 1)),
        (Tier(None, -1),),
        (Tier(None, 1, -1),),
        (Tier(None, 0.5),),  # type: ignore[arg-type]
        (Tier(None, True),),
        tuple(Tier(n, 1) for n in range(1, 21)) + (Tier(None, 1),),
    ],
)
def test_tiers_that_make_no_sense_are_refused(scale: tuple[Tier, ...]) -> None:
    with pytest.raises(TiersRefused):
        volume_tiers.check(scale)


ends = st.lists(st.integers(1, 10**6), max_size=5, unique=True).map(sorted)


@given(ends, st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**6))
def test_one_price_in_every_tier_is_that_price(
    upper: list[int], quantity: int, unit: int, more: int
) -> None:
    scale = [*(Tier(end, unit) for end in upper), Tier(None, unit)]
    volume_tiers.check(scale)
    assert (
        volume_tiers.graduated(quantity, scale)
        == volume_tiers.volume(quantity, scale)
        == quantity * unit
    )
    assert (
        volume_tiers.graduated(quantity + more, scale) - volume_tiers.graduated(quantity, scale)
        == more * unit
    )
