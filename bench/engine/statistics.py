"""Medians of paired ratios with their bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

RESAMPLES: Final = 10_000
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median with its 95 % percentile bootstrap interval over `n` values."""

    low: float
    median: float
    high: float
    n: int


def median_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The median of `values` and how far it could be off. Raises ValueError without values."""
    if not values:
        raise ValueError("a median needs at least one value")
    sample = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(sample), size=(RESAMPLES, len(sample)))
    medians = np.median(sample[picks], axis=1)
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(medians, (tail, 1.0 - tail))
    return Interval(float(low), float(np.median(sample)), float(high), len(sample))
