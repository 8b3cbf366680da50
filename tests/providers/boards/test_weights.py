"""No request and no caller weighs more than its share, and honest traffic is not touched."""

from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from providers.boards import weights
from providers.boards.weights import CALLER_LEAST, CALLER_SHARE, REQUEST_SHARE

requests = st.lists(
    st.tuples(st.integers(0, 20), st.integers(1, 10**7), st.integers(0, 10**7)),
    min_size=10,
    max_size=60,
)


def _kept(found: list[tuple[int, int, int]]) -> Counter[str]:
    kept: Counter[str] = Counter()
    for tenant, entered, out in found:
        kept.update(
            weights.served(
                tenant, input_tokens=entered, cached_tokens=entered // 2, output_tokens=out
            )
        )
    return kept


def _tokens(found: weights.Weighed) -> Fraction:
    return found.input_tokens + found.output_tokens


def test_even_traffic_counts_as_it_was() -> None:
    # given
    kept = _kept([(tenant, 300, 100) for tenant in range(8) for _ in range(5)])

    # when
    found = weights.weighed(kept)

    # then
    assert found == weights.Weighed(40, Fraction(12_000), Fraction(6_000), Fraction(4_000))


def test_one_lying_answer_weighs_as_eight_typical_ones() -> None:
    # given: two hundred honest requests and one that claims ten thousand million tokens of output
    honest = [(tenant, 300, 100) for tenant in range(2, 6) for _ in range(50)]

    # when
    found = weights.weighed(_kept([*honest, (1, 300, 10**10)]))

    # then: 200 × 100 honest ones, and 8 × 400 of the liar, nearly all of it output
    assert found.requests == 201
    assert round(found.input_tokens) == 60_000
    assert round(found.output_tokens) == 20_000 + 3_200


def test_a_tenant_that_calls_without_end_is_a_third_of_the_mix() -> None:
    # given
    honest = [(tenant, 300, 100) for tenant in range(2, 6) for _ in range(100)]
    flood = [(1, 100, 300)] * 20_000

    # when
    found = weights.weighed(_kept([*honest, *flood]))

    # then: of each token, two thirds are as the honest ones use them
    share = Fraction(2, 3) * Fraction(1, 4) + Fraction(1, 3) * Fraction(3, 4)
    assert found.output_tokens / _tokens(found) == share


def test_one_request_of_somebody_else_does_not_outweigh_the_only_customer() -> None:
    # given
    kept = _kept([*([(1, 300, 100)] * 5_000), (2, 100, 300)])

    # when
    found = weights.weighed(kept)

    # then: it counts once among a hundred
    assert found.output_tokens / _tokens(found) == Fraction(100 * 100 + 300, 101 * 400)


def test_nothing_served_weighs_nothing() -> None:
    assert weights.weighed({}) == weights.NOTHING
    assert weights.weighed(_kept([(1, 0, 0)] * 12)).requests == 12
    assert weights.requests_weighed({}) == 0
    assert weights.samples({}) == {}


@given(requests)
def test_no_request_is_more_than_a_tenth(found: list[tuple[int, int, int]]) -> None:
    # given: the largest of them, and the same traffic with it ten thousand times as large
    tenant, entered, out = max(found, key=lambda one: one[1] + one[2])
    rest = [one for one in found if one != (tenant, entered, out)]
    lie = (tenant, entered, (entered + out) * 10_000)

    # when
    lied = weights.weighed(_kept([*rest, lie]))

    # then: what it adds beside the rest is a tenth at most, when there are ten
    if len(rest) >= 9:
        piles = weights.piles(_kept([*rest, lie]))
        alone = max(piles, key=lambda pile: pile.each)
        assert alone.requests == 1
        limit = weights.level(((pile.each, pile.requests) for pile in piles), REQUEST_SHARE)
        counted = sum(min(pile.each, limit) * pile.requests for pile in piles)
        assert min(alone.each, limit) <= counted * REQUEST_SHARE
        assert lied.requests == len(rest) + 1


@given(st.dictionaries(st.integers(0, 7), st.integers(1, 10**9), min_size=1))
def test_samples_of_one_caller_are_a_third_or_a_hundred(counts: dict[int, int]) -> None:
    # when
    found = weights.samples({f"{caller}.{caller}": n for caller, n in counts.items()})

    # then: callers stand in buckets of their own here
    total = sum(found.values())
    for caller, n in counts.items():
        counted = found[str(caller)]
        assert counted <= n
        assert counted <= max(total * CALLER_SHARE, CALLER_LEAST)
        assert counted == n or counted >= CALLER_LEAST or counted == total * CALLER_SHARE


def test_a_slow_callers_samples_do_not_make_the_median() -> None:
    # given: one caller with a thousand slow answers, four with fifty fast ones each
    kept = {"1.150": 1_000, "2.80": 50, "3.80": 50, "4.80": 50, "5.80": 50}

    # then
    assert weights.samples(kept) == {"150": Fraction(100), "80": Fraction(200)}
