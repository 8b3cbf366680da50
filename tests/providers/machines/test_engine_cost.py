"""From $/hour and engine time to a price per token."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import PICO_PER_USD
from providers.machines.engine_cost import (
    CalibrationRefused,
    InHousePrice,
    Work,
    bounded,
    calibrated_work,
    cost_of,
    work_since,
)

HOUR_PICO = 36 * PICO_PER_USD // 100  # $0.36: 100,000,000 pico-dollars a second
CALIBRATION: dict[str, object] = {
    "input_tokens_per_s": 400.0,
    "output_tokens_per_s": 50.0,
    "input_time_share": 0.25,
}


def test_a_price_by_hand() -> None:
    # when
    price = cost_of(calibrated_work(CALIBRATION), usd_per_hour_pico=HOUR_PICO)

    # then
    assert price == InHousePrice(input_pico=250_000, cached_pico=25_000, output_pico=2_000_000)


@given(
    uncached=st.integers(1, 10**9),
    cached=st.integers(0, 10**9),
    output=st.integers(1, 10**9),
    share=st.decimals("0.01", "0.99", places=4),
    hour_pico=st.integers(10**9, 10**16),
)
def test_a_saturated_hour_earns_what_it_costs(
    uncached: int, cached: int, output: int, share: Decimal, hour_pico: int
) -> None:
    # given
    work = Work(uncached, cached, output, 3600 * share, 3600 * (1 - share))

    # when
    price = cost_of(work, usd_per_hour_pico=hour_pico)

    # then
    earned = uncached * price.input_pico + cached * price.cached_pico + output * price.output_pico
    assert 0 <= earned - hour_pico <= uncached + 2 * cached + output


def test_a_restarted_engine_counts_from_zero() -> None:
    # given
    before = {"uptime_s": 900, "output_tokens": 5_000, "output_seconds": 80}
    now = {"uptime_s": 20, "output_tokens": 300, "output_seconds": 6}

    # when
    work = work_since(now, before)

    # then
    assert (work.output_tokens, work.output_seconds) == (300, Decimal(6))


@pytest.mark.parametrize("bad", [0, 1, -0.1, float("nan"), "x", None, True])
def test_a_calibration_without_sense_is_refused(bad: object) -> None:
    with pytest.raises(CalibrationRefused):
        calibrated_work(CALIBRATION | {"input_time_share": bad})


def test_a_live_price_stays_between_floor_and_ceiling() -> None:
    # given
    calibrated = InHousePrice(100, 10, 1_000)
    outside = InHousePrice(150, 15, 700)

    # when
    low = bounded(InHousePrice(1, 1, 1), calibrated=calibrated, outside=None)
    high = bounded(InHousePrice(9_999, 999, 9_999), calibrated=calibrated, outside=None)
    capped = bounded(InHousePrice(120, 12, 9_999), calibrated=calibrated, outside=outside)

    # then
    assert low == InHousePrice(50, 5, 500)
    assert high == InHousePrice(400, 40, 4_000)
    assert capped == InHousePrice(120, 12, 700)
