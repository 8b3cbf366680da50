"""Log-spaced histograms: counts per bucket, each 5 % wider than the one before. Pure.

They merge by addition, so that a window of any length is the sum of its rollups, and a percentile
read from them is off by at most half a bucket.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

GROWTH = 1.05
_LOG_GROWTH = math.log(GROWTH)
# 0.01 … 10^8 covers a token per two minutes and ten milliseconds up to a day.
VALUE_MIN = 0.01
VALUE_MAX = 1e8

Histogram = dict[str, int]


def bucket_of(value: float) -> str:
    """The bucket's number as JSON keys it."""
    clamped = min(max(value, VALUE_MIN), VALUE_MAX)
    return str(math.floor(math.log(clamped) / _LOG_GROWTH))


def merged(histograms: Iterable[Mapping[str, int]]) -> Histogram:
    total: Counter[str] = Counter()
    for histogram in histograms:
        total.update(histogram)
    return dict(total)


def size(histogram: Mapping[str, int]) -> int:
    return sum(histogram.values())


def percentile(histogram: Mapping[str, int | Fraction], share: Fraction) -> float | None:
    """The value below which `share` (0..1) of the samples lie; None without samples. Samples may
    count in parts."""
    total = sum(histogram.values())
    if total == 0:
        return None
    rank = share * total
    seen: int | Fraction = 0
    for bucket in sorted(histogram, key=int):
        seen += histogram[bucket]
        if seen >= rank:
            return float(GROWTH ** (int(bucket) + 0.5))
    raise AssertionError("the counts of a histogram exceed their own sum")
