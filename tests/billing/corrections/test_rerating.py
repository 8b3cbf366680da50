"""A stored cost can be computed again: by version id, whatever was published since."""

from datetime import UTC, datetime, timedelta
from itertools import count

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from billing import rating
from billing.prices import versions as prices
from billing.rating import Price
from billing.usage import CanonicalUsage

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
RATES = (
    "input_pico",
    "cache_read_pico",
    "cache_write_5m_pico",
    "cache_write_1h_pico",
    "output_pico",
    "reasoning_pico",
    "input_audio_pico",
    "input_image_pico",
    "output_audio_pico",
    "request_pico",
)
skus = (f"acme/model-{number}" for number in count())
counts = st.integers(0, 10**9)
some_rates = st.fixed_dictionaries({name: st.integers(1, 10**11) for name in RATES})


@st.composite
def usages(draw: st.DrawFn) -> CanonicalUsage:
    reads, short, long, sound, pictures, rest = (draw(counts) for _ in range(6))
    reasoning, speech, text = (draw(counts) for _ in range(3))
    return CanonicalUsage(
        input_tokens=reads + short + long + sound + pictures + rest,
        output_tokens=reasoning + speech + text,
        cache_read_tokens=reads,
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=long,
        input_audio_tokens=sound,
        input_image_tokens=pictures,
        reasoning_tokens=reasoning,
        output_audio_tokens=speech,
    )


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(usages(), some_rates, some_rates)
def test_a_stored_version_rates_the_stored_usage_to_the_same_cost(
    usage: CanonicalUsage, rates: dict[str, int], corrected: dict[str, int]
) -> None:
    # given
    sku = next(skus)
    version = prices.publish(
        sku_code=sku, valid_from=MARCH, source="test", recorded_by="alice", **rates
    )
    cost = rating.rate(usage, Price(version=version.pk, sku=sku, **rates))
    kept = msgspec.json.encode(usage)
    prices.publish(
        sku_code=sku,
        valid_from=MARCH + timedelta(days=1),
        source="test",
        recorded_by="bob",
        **corrected,
    )

    # when
    stored = prices.by_version({version.pk})[version.pk]
    again = rating.rate(msgspec.json.decode(kept, type=CanonicalUsage), stored)

    # then
    assert again == cost


@given(usages(), usages(), some_rates)
def test_two_costs_of_one_tier_add_up_with_every_kind_of_token(
    one: CanonicalUsage, other: CanonicalUsage, rates: dict[str, int]
) -> None:
    # given
    price = Price(version=1, sku="acme/model", **rates)
    both = CanonicalUsage(
        **{name: getattr(one, name) + getattr(other, name) for name in one.__struct_fields__}
    )

    # when
    apart = rating.rate(one, price) + rating.rate(other, price)

    # then
    assert rating.rate(both, price) + price.request_pico == apart
