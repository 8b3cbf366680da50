"""The rules of money that hold for any figures: rounding once, cliffs, bounds, changes, hours."""

import json
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from billing import money, rating
from billing.errors import PriceRefused
from billing.rates import (
    ALL_DAY,
    CHANGE_PPM_MAX,
    CHANGE_PPM_MIN,
    MINUTES_PER_DAY,
    PPM,
    RATE_PICO_MAX,
    REQUEST_PICO_MAX,
    Rates,
    Window,
    percent_text,
)
from billing.rating import Price, PriceNotFound
from billing.usage import CanonicalUsage, UsageError

sums = st.integers(-(10**24), 10**24)
units = st.integers(1, 10**13)
rates = st.integers(0, RATE_PICO_MAX)
counts = st.integers(0, 10**7)
minutes = st.integers(0, MINUTES_PER_DAY - 1)
NAMES = (
    "input_pico",
    "cache_read_pico",
    "cache_write_5m_pico",
    "cache_write_1h_pico",
    "output_pico",
    "reasoning_pico",
)


@st.composite
def some_rates(draw: st.DrawFn) -> Rates:
    given = {name: draw(rates) for name in NAMES}
    audio = draw(st.none() | rates)
    return Rates(**given, input_audio_pico=audio, request_pico=draw(st.integers(0, 10**12)))


@st.composite
def some_price(draw: st.DrawFn, *, version: int = 1, tier: int = 0, over: int = 0) -> Price:
    return Price(
        version=version,
        sku="any",
        service_tier=tier,
        context_over=over,
        input_audio_pico=draw(rates),
        input_image_pico=draw(rates),
        output_audio_pico=draw(rates),
        request_pico=draw(st.integers(0, 10**9)),
        **{name: draw(rates) for name in NAMES},
    )


@st.composite
def some_usage(draw: st.DrawFn) -> CanonicalUsage:
    parts = [draw(counts) for _ in range(6)]
    out = [draw(counts) for _ in range(3)]
    return CanonicalUsage(
        input_tokens=sum(parts),
        cache_read_tokens=parts[0],
        cache_write_5m_tokens=parts[1],
        cache_write_1h_tokens=parts[2],
        input_audio_tokens=parts[3],
        input_image_tokens=parts[4],
        output_tokens=sum(out),
        reasoning_tokens=out[0],
        output_audio_tokens=out[1],
    )


# --- rounding -----------------------------------------------------------------------------------


@given(sums, units)
def test_a_rounded_sum_is_the_nearest_and_a_half_goes_away_from_zero(
    amount: int, unit: int
) -> None:
    rounded = money.half_away(amount, unit)

    off = amount - rounded * unit
    assert 2 * abs(off) <= unit
    if 2 * abs(off) == unit:
        assert abs(rounded * unit) > abs(amount)


@given(sums, units)
def test_what_is_charged_and_given_back_rounds_to_nothing(amount: int, unit: int) -> None:
    assert money.half_away(amount, unit) + money.half_away(-amount, unit) == 0


@given(sums, sums)
def test_a_greater_sum_is_never_a_smaller_line(a: int, b: int) -> None:
    assert (money.cents(max(a, b)) >= money.cents(min(a, b))) is True


@given(sums)
def test_whole_cents_are_those_cents(amount: int) -> None:
    assert money.cents(amount * money.PICO_PER_CENT) == amount


@given(st.lists(sums, max_size=50))
def test_rounding_once_is_off_by_less_than_a_cent_however_many_requests(parts: list[int]) -> None:
    """A line is rounded, not the requests in it: a thousand halves of a cent are five dollars."""
    line_pico = money.cents(sum(parts)) * money.PICO_PER_CENT
    assert 2 * abs(line_pico - sum(parts)) <= money.PICO_PER_CENT


@given(st.integers(0, 2**62))
def test_limits_round_down_and_holds_up_and_both_are_one_step_apart(pico: int) -> None:
    down, up = money.nano_floor(pico), money.nano_ceil(pico)

    assert down * money.PICO_PER_NANO <= pico <= up * money.PICO_PER_NANO
    assert up - down == (pico % money.PICO_PER_NANO > 0)


@given(st.integers(-(10**31), 10**31))
def test_an_amount_is_the_same_in_dollars_json_and_back(pico: int) -> None:
    said = money.usd_json(pico)

    assert money.usd(pico) == Decimal(said.decode())
    assert json.loads(said, parse_float=Decimal, parse_int=Decimal) == money.usd(pico)
    if abs(money.usd(pico)) < money.USD_MAX:
        assert money.pico_from_usd(said.decode()) == pico


@given(st.integers(0, 2**62))
def test_a_rate_is_the_same_per_million_tokens_and_back(pico_per_token: int) -> None:
    said = money.usd_per_million(pico_per_token)

    assert money.pico_per_token(Decimal(said)) == pico_per_token


@pytest.mark.parametrize(
    ("pico_per_token", "said"), [(0, "0"), (37_500, "0.0375"), (150_000, "0.15"), (10**7, "10")]
)
def test_a_rate_has_no_digit_too_many(pico_per_token: int, said: str) -> None:
    assert money.usd_per_million(pico_per_token) == said


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "1,5", "1e3", "0x10", "NaN", "inf", "-inf", "١٢", "1_000", "$1", "--1", "1."],
)
def test_what_is_no_plain_sum_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="plain digits"):
        money.pico_from_usd(text)


@pytest.mark.parametrize(
    "amount", ["0.0000000000001", "1.0000000000005", "1.000000000000000000000000000001"]
)
def test_finer_than_a_pico_dollar_is_refused_and_not_rounded(amount: str) -> None:
    with pytest.raises(ValueError, match="finer than a pico-dollar"):
        money.pico_from_usd(amount)


@pytest.mark.parametrize("amount", ["100000000000000000000", Decimal("NaN"), Decimal("1e400")])
def test_more_money_than_there_is_is_none(amount: str | Decimal) -> None:
    with pytest.raises(ValueError, match=r"not an amount of money|plain digits"):
        money.pico_from_usd(amount)


@given(st.integers(0, 10**11))
def test_a_published_price_of_whole_micro_dollars_a_million_is_exact(micro: int) -> None:
    assert money.pico_per_token(Decimal(micro).scaleb(-6)) == micro


# --- rating -------------------------------------------------------------------------------------


@given(some_usage(), some_price())
def test_a_cost_is_the_sum_of_its_leaves_and_of_nothing_else(
    usage: CanonicalUsage, price: Price
) -> None:
    leaves = {
        "input_pico": usage.uncached_input_tokens,
        "cache_read_pico": usage.cache_read_tokens,
        "cache_write_5m_pico": usage.cache_write_5m_tokens,
        "cache_write_1h_pico": usage.cache_write_1h_tokens,
        "input_audio_pico": usage.input_audio_tokens,
        "input_image_pico": usage.input_image_tokens,
        "output_pico": usage.text_output_tokens,
        "reasoning_pico": usage.reasoning_tokens,
        "output_audio_pico": usage.output_audio_tokens,
    }

    assert sum(leaves.values()) == usage.input_tokens + usage.output_tokens
    assert rating.rate(usage, price) == price.request_pico + sum(
        tokens * getattr(price, name) for name, tokens in leaves.items()
    )


@given(some_usage(), some_price(), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_hold_covers_every_usage_within_its_bounds(
    usage: CanonicalUsage, price: Price, spare_in: int, spare_out: int
) -> None:
    worst = rating.worst_case(
        (price,),
        input_bound=usage.input_tokens + spare_in,
        output_bound=usage.output_tokens + spare_out,
    )
    assert rating.rate(usage, price) <= worst


@given(some_usage(), st.data(), st.integers(1, 10**8))
def test_a_hold_covers_the_context_tier_that_the_usage_reaches(
    usage: CanonicalUsage, data: st.DataObject, threshold: int
) -> None:
    """The cliff may be reached within the bound: the dearer side is held, whichever it is."""
    pinned = (
        data.draw(some_price(version=1)),
        data.draw(some_price(version=2, over=threshold)),
    )
    chosen = rating.choose(pinned, service_tier=0, input_tokens=usage.input_tokens)

    assert chosen.version == (2 if usage.input_tokens > threshold else 1)
    assert rating.rate(usage, chosen) <= rating.worst_case(
        pinned, input_bound=usage.input_tokens, output_bound=usage.output_tokens
    )


@given(some_price(), counts, counts, counts, counts)
def test_more_room_never_holds_less(price: Price, i: int, o: int, more_i: int, more_o: int) -> None:
    small = rating.worst_case((price,), input_bound=i, output_bound=o)
    large = rating.worst_case((price,), input_bound=i + more_i, output_bound=o + more_o)
    assert small <= large


@given(st.data(), counts, counts)
def test_one_more_candidate_price_never_holds_less(
    data: st.DataObject, input_bound: int, output_bound: int
) -> None:
    one = data.draw(some_price(version=1))
    other = data.draw(some_price(version=2, tier=1))

    both = rating.worst_case((one, other), input_bound=input_bound, output_bound=output_bound)

    for each in (one, other):
        alone = rating.worst_case((each,), input_bound=input_bound, output_bound=output_bound)
        assert alone <= both


@given(some_price(tier=1), counts)
def test_a_tier_that_was_not_pinned_has_no_price(price: Price, tokens: int) -> None:
    with pytest.raises(PriceNotFound):
        rating.choose((price,), service_tier=0, input_tokens=tokens)


@given(some_price(over=1_000), st.integers(0, 1_000))
def test_below_the_only_threshold_there_is_no_price_and_nothing_is_held(
    price: Price, tokens: int
) -> None:
    with pytest.raises(PriceNotFound):
        rating.choose((price,), service_tier=0, input_tokens=tokens)
    with pytest.raises(PriceNotFound):
        rating.worst_case((price,), input_bound=tokens, output_bound=10)


@pytest.mark.parametrize(
    ("leaf", "parent", "rate"),
    [
        ("input_audio_tokens", "input_tokens", "input_audio_pico"),
        ("input_image_tokens", "input_tokens", "input_image_pico"),
        ("output_audio_tokens", "output_tokens", "output_audio_pico"),
    ],
)
def test_a_unit_that_is_not_sold_is_quarantined_and_never_converted(
    leaf: str, parent: str, rate: str
) -> None:
    price = Price(version=1, sku="any", **dict.fromkeys(NAMES, 7))  # type: ignore[arg-type]
    usage = CanonicalUsage(**{"input_tokens": 0, "output_tokens": 0, parent: 1, leaf: 1})

    with pytest.raises(UsageError, match="has no price at this sku"):
        rating.rate(usage, price)
    sold = Price(version=1, sku="any", **dict.fromkeys(NAMES, 7), **{rate: 11})  # type: ignore[arg-type]
    assert rating.rate(usage, sold) == 11


@given(some_usage(), st.sampled_from(CanonicalUsage.__struct_fields__))
def test_a_negative_count_anywhere_is_not_rated(usage: CanonicalUsage, name: str) -> None:
    stated = {each: getattr(usage, each) for each in usage.__struct_fields__} | {name: -1}

    with pytest.raises(UsageError):
        CanonicalUsage(**stated).check()


# --- changes of a price -------------------------------------------------------------------------


@given(some_rates(), st.integers(CHANGE_PPM_MIN, CHANGE_PPM_MAX))
def test_a_change_is_within_half_a_pico_dollar_of_its_share(made: Rates, change_ppm: int) -> None:
    changed = made.changed(change_ppm)

    for (name, before), (_, after) in zip(made.items(), changed.items(), strict=True):
        if before is None:
            assert after is None, name
            continue
        assert after is not None
        exact = Decimal(before) * (PPM + change_ppm) / PPM
        assert abs(after - exact) <= Decimal("0.5") or (after, exact < 1) == (1, True)


@given(some_rates(), st.integers(CHANGE_PPM_MIN + 1, CHANGE_PPM_MAX))
def test_nothing_paid_becomes_free_but_by_a_change_that_says_so(
    made: Rates, change_ppm: int
) -> None:
    for (_, before), (_, after) in zip(made.items(), made.changed(change_ppm).items(), strict=True):
        assert bool(before) == bool(after)
    assert made.changed(CHANGE_PPM_MIN).all_zero


@given(some_rates())
def test_no_change_changes_nothing(made: Rates) -> None:
    assert made.changed(0) == made


@given(some_rates(), st.integers(-PPM, PPM), st.integers(0, PPM))
def test_a_greater_margin_is_never_a_lower_price(made: Rates, low: int, more: int) -> None:
    lower, higher = made.changed(low), made.changed(low + more)
    for (_, small), (_, large) in zip(lower.items(), higher.items(), strict=True):
        assert (small is None) == (large is None)
        assert (small or 0) <= (large or 0)


@pytest.mark.parametrize("change_ppm", [CHANGE_PPM_MIN - 1, CHANGE_PPM_MAX + 1, 10**12])
def test_a_change_out_of_bounds_is_a_typing_error(change_ppm: int) -> None:
    made = Rates(**dict.fromkeys(NAMES, 1))  # type: ignore[arg-type]
    with pytest.raises(PriceRefused, match="not a change of a price"):
        made.changed(change_ppm)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_pico", -1),
        ("output_pico", RATE_PICO_MAX + 1),
        ("reasoning_pico", 1.0),
        ("cache_read_pico", True),
        ("cache_write_5m_pico", None),
        ("request_pico", REQUEST_PICO_MAX + 1),
        ("input_audio_pico", "7"),
    ],
)
def test_a_rate_that_is_no_whole_number_within_bounds_is_refused(name: str, value: object) -> None:
    stated = {**dict.fromkeys(NAMES, 1), name: value}
    with pytest.raises(PriceRefused, match=name):
        Rates(**stated).check()  # type: ignore[arg-type]


@given(st.integers(-PPM, 10 * PPM))
def test_a_change_in_words_is_the_change(change_ppm: int) -> None:
    said = percent_text(change_ppm)

    assert said.endswith(" %")
    assert said[0] in "+-"
    assert Decimal(said.removesuffix(" %")) * 10_000 == change_ppm


# --- hours of a price ---------------------------------------------------------------------------


@given(minutes, minutes)
def test_a_window_and_the_rest_of_the_day_make_a_day(first: int, last: int) -> None:
    assume(first != last)
    inside, outside = Window(first, last), Window(last, first)

    for minute in range(0, MINUTES_PER_DAY, 7):
        assert inside.contains(minute) != outside.contains(minute)
    assert not inside.overlaps(outside)
    assert not outside.overlaps(inside)


@given(minutes, minutes, minutes, minutes)
def test_two_windows_overlap_where_a_minute_is_in_both(a: int, b: int, c: int, d: int) -> None:
    assume(a != b and c != d)
    one, other = Window(a, b), Window(c, d)

    shared = any(one.contains(m) and other.contains(m) for m in range(MINUTES_PER_DAY))

    assert one.overlaps(other) == shared == other.overlaps(one)


@given(minutes, minutes)
def test_all_day_gives_way_to_every_window_and_overlaps_itself(first: int, last: int) -> None:
    assume(first != last)

    assert ALL_DAY.overlaps(ALL_DAY)
    assert not ALL_DAY.overlaps(Window(first, last))
    assert ALL_DAY.contains(first)


@pytest.mark.parametrize("window", [Window(5, 5), Window(-1, 5), Window(0, MINUTES_PER_DAY)])
def test_what_is_no_window_is_refused(window: Window) -> None:
    with pytest.raises(PriceRefused):
        window.check()
