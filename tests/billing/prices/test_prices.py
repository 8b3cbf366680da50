"""Publishing prices: dated, immutable, sane."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.errors import PriceRefused
from billing.models import PriceVersion
from billing.prices import versions as prices
from tests import listed

pytestmark = pytest.mark.django_db

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
SKU = "acme/swift-1"


def publish(valid_from: datetime = MARCH, **changes: Any) -> PriceVersion:
    facts: dict[str, Any] = {
        "sku_code": SKU,
        "input_pico": 150_000,
        "cache_read_pico": 75_000,
        "cache_write_5m_pico": 150_000,
        "cache_write_1h_pico": 150_000,
        "output_pico": 600_000,
        "reasoning_pico": 600_000,
        "valid_from": valid_from,
        "source": "test",
        "recorded_by": "test",
    }
    return prices.publish(**{**facts, **changes})


def test_a_new_version_closes_the_one_before() -> None:
    # given
    publish()
    # when
    second = publish(APRIL, output_pico=700_000)
    # then
    first, now = prices.history(SKU)
    assert (first.during.lower, first.during.upper) == (MARCH, APRIL)
    assert (now.pk, now.during.upper) == (second.pk, None)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (datetime(2026, 2, 28, tzinfo=UTC), []),
        (MARCH, [600_000]),
        (datetime(2026, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC), [600_000]),
        (APRIL, [700_000]),
    ],
)
def test_a_price_holds_from_its_first_moment_to_the_next_one_s(
    when: datetime, expected: list[int]
) -> None:
    # given
    publish()
    publish(APRIL, output_pico=700_000)
    # when / then
    assert [price.output_pico for price in listed.price_at(SKU, when)] == expected
    assert [p.output_pico for p in prices.in_force(when).get(SKU, ())] == expected


def test_the_same_rates_again_are_the_same_version() -> None:
    assert publish().pk == publish(APRIL).pk


def test_tiers_are_priced_apart() -> None:
    # when
    publish()
    publish(context_over=200_000, input_pico=300_000)
    publish(service_tier=1, input_pico=75_000)
    # then
    found = listed.price_at(SKU, MAY)
    assert [(p.service_tier, p.context_over, p.input_pico) for p in found] == [
        (0, 0, 150_000),
        (0, 200_000, 300_000),
        (1, 0, 75_000),
    ]


def test_nothing_is_published_into_the_past_of_a_version() -> None:
    # given
    publish(APRIL)
    # when / then
    with pytest.raises(PriceRefused, match="begins at or after"):
        publish(MARCH, output_pico=1)
    assert PriceVersion.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"input_pico": -1}, "out of bounds"),
        ({"output_pico": 10**12}, "out of bounds"),
        ({"input_pico": float("nan")}, "not a whole number"),
        ({"input_pico": Decimal("0.5")}, "not a whole number"),
        ({"input_pico": True}, "not a whole number"),
        ({"input_pico": None}, "not a whole number"),
        ({"request_pico": 10**15}, "out of bounds"),
        ({"service_tier": 9}, "no such service tier"),
        ({"context_over": -5}, "not a context threshold"),
        ({"sku_code": ""}, "1 to 200"),
        ({"free": True}, "if and only if"),
        ({"valid_from": datetime(2026, 3, 1)}, "time zone"),  # noqa: DTZ001
    ],
)
def test_a_price_that_makes_no_sense_is_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(PriceRefused, match=match):
        publish(**change)
    assert PriceVersion.objects.count() == 0


def test_zero_is_a_price_only_where_it_is_called_free() -> None:
    # given
    nothing = dict.fromkeys(
        (
            "input_pico",
            "cache_read_pico",
            "cache_write_5m_pico",
            "cache_write_1h_pico",
            "output_pico",
            "reasoning_pico",
        ),
        0,
    )
    # when / then
    with pytest.raises(PriceRefused, match="published as free"):
        publish(**nothing)
    assert publish(free=True, **nothing).free


def test_a_withdrawn_sku_has_no_price_any_more() -> None:
    # given
    publish()
    # when
    closed = prices.withdraw(sku_code=SKU, actor="op", at=APRIL)
    # then
    assert closed == 1
    assert listed.price_at(SKU, APRIL) == ()
    assert len(listed.price_at(SKU, MARCH)) == 1
