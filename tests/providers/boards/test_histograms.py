"""Percentiles from log-spaced buckets: off by at most half a bucket, and mergeable."""

from hypothesis import given
from hypothesis import strategies as st

from providers.boards.histograms import bucket_of, merged, percentile, size

values = st.lists(st.floats(0.02, 1e7), min_size=1, max_size=200)


@given(values, st.sampled_from([0.05, 0.5, 0.95, 1.0]))
def test_a_percentile_is_within_a_bucket_of_the_exact_one(found: list[float], share: float) -> None:
    # given
    histogram = merged({bucket_of(value): 1} for value in found)
    exact = sorted(found)[max(1, -(-int(share * 100) * len(found) // 100)) - 1]

    # when
    read = percentile(histogram, share)

    # then
    assert read is not None
    assert 1 / 1.03 <= read / exact <= 1.03


@given(values, values)
def test_merging_is_adding(one: list[float], other: list[float]) -> None:
    # given
    parts = [merged({bucket_of(v): 1} for v in found) for found in (one, other)]

    # then
    assert merged(parts) == merged({bucket_of(v): 1} for v in one + other)
    assert size(merged(parts)) == len(one) + len(other)


def test_no_sample_has_no_percentile() -> None:
    assert percentile({}, 0.5) is None
