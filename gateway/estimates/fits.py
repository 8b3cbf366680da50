"""What counted texts say of a tokenizer: least squares over the newest of an offer. Pure.

Weights begin at what is usual and are drawn to what was counted; tenants weigh alike, however much
they send, and a tenant's own answers then scale its own estimates.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from billing.samples import Sample
from gateway.estimates.text_features import CLASSES, USUAL, Shape

MEASURED_FROM: Final = 8  # fewer are no measurement
USUAL_STRENGTH: Final = 0.03
OWN_STRENGTH: Final = 4  # how many answers of its own a tenant needs to count half
OWN_SCALE: Final = (0.5, 2.0)
SIZE_LEAST: Final = 8
TOKENS_LEAST_PER_BYTE: Final = 1 / 16
TOKENS_MOST_PER_BYTE: Final = 1
ONE_EACH_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Fit:
    """What the samples of an offer say. `own` scales a tenant's estimates; `one_each` says that
    its streams bring a token a chunk."""

    weights: Sequence[float]
    samples: int
    own: dict[int, float]
    one_each: bool

    def tokens(self, tenant: int, shape: Shape, *, size: int, chunks: int) -> int:
        """Of a text of this shape, within what a tokenizer can do."""
        if chunks and self.one_each:
            return chunks
        tokens = _dot(self.weights, shape) * self.own.get(tenant, 1.0)
        most = size * TOKENS_MOST_PER_BYTE + _overhead(shape)
        least = 1 if size else 0
        return round(min(max(tokens, size * TOKENS_LEAST_PER_BYTE, least), most))


def is_plausible(sample: Sample) -> bool:
    """A token is a byte at least, and hardly ever more than 16."""
    if sample.size < SIZE_LEAST or len(sample.shape) != CLASSES:
        return False
    most = sample.size * TOKENS_MOST_PER_BYTE + _overhead(sample.shape)
    return sample.size * TOKENS_LEAST_PER_BYTE <= sample.tokens <= most


def _overhead(shape: Shape) -> int:
    """What a template may put around messages, at most."""
    *_, messages, requests = shape
    return 16 * messages + 64 * requests


def fitted(samples: Sequence[Sample]) -> Fit:
    per_tenant = Counter(sample.tenant for sample in samples)
    each = len(samples) / len(per_tenant)
    weights = _least_squares([(s.shape, s.tokens, each / per_tenant[s.tenant]) for s in samples])
    ratios: dict[int, list[float]] = defaultdict(list)
    for sample in samples:
        predicted = max(_dot(weights, sample.shape), 1.0)
        ratios[sample.tenant].append(sample.tokens / predicted)
    low, high = OWN_SCALE
    own = {
        tenant: min(max((OWN_STRENGTH + sum(found)) / (OWN_STRENGTH + len(found)), low), high)
        for tenant, found in ratios.items()
    }
    streamed = [sample for sample in samples if sample.chunks]
    # The end of an answer may be a token that brings no text.
    one_each = sum(sample.tokens - sample.chunks in (0, 1) for sample in streamed)
    return Fit(
        weights,
        len(samples),
        own,
        len(streamed) >= MEASURED_FROM and one_each >= ONE_EACH_SHARE * len(streamed),
    )


def _dot(weights: Sequence[float], shape: Shape) -> float:
    return sum(weight * count for weight, count in zip(weights, shape, strict=True))


def _least_squares(rows: Iterable[tuple[Shape, int, float]]) -> Sequence[float]:
    """Weights that make relative errors least. They begin at what is usual; learned is how far an
    offer is from it."""
    size = CLASSES
    matrix = [[0.0] * size for _ in range(size)]
    right = [0.0] * size
    for shape, tokens, weight in rows:
        off = 1.0 - _dot(USUAL, shape) / tokens
        row = [(at, count / tokens) for at, count in enumerate(shape) if count]
        for nth, (at, x) in enumerate(row):
            right[at] += weight * x * off
            line, weighted = matrix[at], weight * x
            for other, y in row[nth:]:
                line[other] += weighted * y
    for at in range(size):
        matrix[at][at] += USUAL_STRENGTH
        for below in range(at):
            matrix[at][below] = matrix[below][at]
    return [before + change for before, change in zip(USUAL, _solved(matrix, right), strict=True)]


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """By elimination; the matrix is symmetric and positive."""
    size = len(right)
    for at in range(size):
        pivot = matrix[at][at]
        for below in range(at + 1, size):
            factor = matrix[below][at] / pivot
            if factor:
                line, top = matrix[below], matrix[at]
                for column in range(at, size):
                    line[column] -= factor * top[column]
                right[below] -= factor * right[at]
    found = [0.0] * size
    for at in reversed(range(size)):
        known = sum(matrix[at][column] * found[column] for column in range(at + 1, size))
        found[at] = (right[at] - known) / matrix[at][at]
    return found
