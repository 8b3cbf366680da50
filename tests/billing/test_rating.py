"""Rating: exact, additive, and never above the worst case it was held for."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from billing import rating
from billing.money import nano_ceil, nano_floor, pico_from_usd, usd_json
from billing.rating import Price, PriceNotFound
from billing.usage import CanonicalUsage, UsageError

SONNET = Price(
    version=1,
    sku="anthropic/claude-sonnet-4-5",
    input_pico=3_000_000,
    cache_read_pico=300_000,
    cache_write_5m_pico=3_750_000,
    cache_write_1h_pico=6_000_000,
    output_pico=15_000_000,
    reasoning_pico=15_000_000,
)
GPT5 = Price(
    version=2,
    sku="openai/gpt-5",
    input_pico=1_250_000,
    cache_read_pico=125_000,
    cache_write_5m_pico=1_250_000,
    cache_write_1h_pico=1_250_000,
    output_pico=10_000_000,
    reasoning_pico=10_000_000,
)
LONG = Price(
    version=3,
    sku="openai/gpt-5",
    context_over=272_000,
    input_pico=2_500_000,
    cache_read_pico=250_000,
    cache_write_5m_pico=2_500_000,
    cache_write_1h_pico=2_500_000,
    output_pico=15_000_000,
    reasoning_pico=15_000_000,
)

counts = st.integers(0, 10**7)
rates = st.integers(0, 10**9)


@st.composite
def usages(draw: st.DrawFn) -> CanonicalUsage:
    parts = [draw(counts) for _ in range(6)]
    return CanonicalUsage(
        input_tokens=sum(parts[:4]),
        cache_read_tokens=parts[0],
        cache_write_5m_tokens=parts[1],
        cache_write_1h_tokens=parts[2],
        output_tokens=parts[4] + parts[5],
        reasoning_tokens=parts[4],
    )


@st.composite
def some_price(draw: st.DrawFn) -> Price:
    names = (
        "input_pico",
        "cache_read_pico",
        "cache_write_5m_pico",
        "cache_write_1h_pico",
        "output_pico",
        "reasoning_pico",
        "request_pico",
    )
    return Price(version=1, sku="any", **{name: draw(rates) for name in names})


def test_anthropic_cache_writes_of_both_lives() -> None:
    usage = CanonicalUsage(
        input_tokens=4071,
        cache_read_tokens=3962,
        cache_write_5m_tokens=60,
        cache_write_1h_tokens=40,
        output_tokens=50,
    )
    assert usd_json(rating.rate(usage, SONNET)) == b"0.0024306"


def test_openai_cached_prompt_and_reasoning() -> None:
    usage = CanonicalUsage(
        input_tokens=4000, cache_read_tokens=3962, output_tokens=50, reasoning_tokens=30
    )
    assert usd_json(rating.rate(usage, GPT5)) == b"0.00104275"


@pytest.mark.parametrize(("tokens", "version"), [(272_000, 2), (272_001, 3), (0, 2)])
def test_a_context_tier_is_a_cliff_strictly_above_its_threshold(tokens: int, version: int) -> None:
    chosen = rating.choose((GPT5, LONG), service_tier=0, input_tokens=tokens)
    assert chosen.version == version


def test_an_unknown_tier_has_no_price() -> None:
    with pytest.raises(PriceNotFound):
        rating.choose((GPT5, LONG), service_tier=3, input_tokens=1)


@pytest.mark.parametrize(
    "usage",
    [
        CanonicalUsage(input_tokens=1, cache_read_tokens=2, output_tokens=0),
        CanonicalUsage(input_tokens=1, output_tokens=1, reasoning_tokens=2),
        CanonicalUsage(input_tokens=-1, output_tokens=0),
        CanonicalUsage(input_tokens=5, input_audio_tokens=1, output_tokens=0),
    ],
)
def test_usage_that_does_not_add_up_is_not_rated(usage: CanonicalUsage) -> None:
    with pytest.raises(UsageError):
        rating.rate(usage, SONNET)


@given(usages(), usages(), some_price())
def test_rating_is_additive_within_a_tier(
    a: CanonicalUsage, b: CanonicalUsage, price: Price
) -> None:
    both = CanonicalUsage(
        **{name: getattr(a, name) + getattr(b, name) for name in a.__struct_fields__}
    )
    together = rating.rate(both, price) + price.request_pico
    assert together == rating.rate(a, price) + rating.rate(b, price)


@given(usages(), some_price())
def test_a_cost_never_passes_the_worst_case_of_its_bounds(
    usage: CanonicalUsage, price: Price
) -> None:
    worst = rating.worst_case(
        (price,),
        input_bound=usage.input_tokens,
        output_bound=usage.output_tokens,
    )
    assert 0 <= rating.rate(usage, price) <= worst


@given(st.integers(0, 10**18))
def test_nano_dollars_round_against_the_house_for_limits_and_for_it_for_holds(pico: int) -> None:
    assert nano_floor(pico) * 1000 <= pico <= nano_ceil(pico) * 1000
    assert nano_ceil(pico) - nano_floor(pico) <= 1


@given(st.integers(-(10**20), 10**20))
def test_an_amount_in_json_loses_nothing(pico: int) -> None:
    assert pico_from_usd(usd_json(pico).decode()) == pico
