"""How many tokens a text is, where nobody counted it: by what its model counted for others.

For each offer the newest answers with counts are kept, as shapes; least squares over them say what
each letter, word, digit or mark costs in tokens there, drawn towards what is usual while few are
known. Tenants weigh alike, however much they send, and a tenant's own answers move its own
estimates first. A ratio of a model is no secret: a tenant's first call rests on what the others'
answers were.
"""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from billing import basis
from gateway.estimates import shapes
from gateway.estimates.shapes import CLASSES, USUAL, Shape

OFFERS_MAX: Final = 2_000
SAMPLES_MAX: Final = 192  # of one offer
SAMPLES_OF_TENANT_MAX: Final = 48
MEASURED_FROM: Final = 8  # fewer are no measurement
EAGER_SAMPLES: Final = 64  # taken as they come; afterwards one in a while
EAGER_SAMPLES_OF_TENANT: Final = 8
EVERY_S: Final = 5.0
REFIT_EVERY_S: Final = 1.0
REFIT_SHARE: Final = 8  # of the samples, so many in one must be new
USUAL_STRENGTH: Final = 0.03
OWN_STRENGTH: Final = 4  # how many answers of its own a tenant needs to count half
OWN_SCALE: Final = (0.5, 2.0)
SIZE_LEAST: Final = 8
TOKENS_LEAST_PER_BYTE: Final = 1 / 16
TOKENS_MOST_PER_BYTE: Final = 1
ONE_EACH_SHARE: Final = 0.9
# A chunk of so many bytes is probably one token.
CHUNK_BYTES: Final = (2, 8)


class Sample(NamedTuple):
    """A counted text. `chunks` is in how many pieces it was streamed, 0 where it was not."""

    shape: Shape
    size: int
    tokens: int
    tenant: int
    chunks: int = 0


class Estimate(NamedTuple):
    tokens: int
    basis: str


@dataclass(frozen=True, slots=True)
class _Fit:
    """What the samples of an offer say. `own` scales a tenant's estimates; `one_each` says that
    its streams bring a token a chunk."""

    weights: Sequence[float]
    samples: int
    own: dict[int, float]
    one_each: bool


@dataclass(slots=True)
class _Offer:
    samples: deque[Sample] = field(default_factory=deque)
    tenants: Counter[int] = field(default_factory=Counter)
    version: int = 0
    taken_at: float = 0.0
    fit: _Fit | None = None
    fit_version: int = -1
    fit_at: float = 0.0

    def add(self, sample: Sample) -> None:
        """A tenant that has many gives up its own oldest, else the oldest of all goes."""
        self.samples.append(sample)
        self.tenants[sample.tenant] += 1
        self.version += 1
        oldest = None
        if self.tenants[sample.tenant] > SAMPLES_OF_TENANT_MAX:
            oldest = next(each for each in self.samples if each.tenant == sample.tenant)
        elif len(self.samples) > SAMPLES_MAX:
            oldest = self.samples[0]
        if oldest is not None:
            self.samples.remove(oldest)
            self.tenants[oldest.tenant] -= 1


class Ratios:
    """The measurements of one process; bounded."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._offers: OrderedDict[tuple[str, str], _Offer] = OrderedDict()
        self.fresh: dict[tuple[str, str], list[Sample]] = {}  # learned here, not yet shared

    def wants(self, model: str, sku: str, tenant: int) -> bool:
        """Whether another answer of this offer would teach something; cheap to ask."""
        offer = self._offers.get((model, sku))
        if offer is None or len(offer.samples) < EAGER_SAMPLES:
            return True
        if offer.tenants[tenant] < EAGER_SAMPLES_OF_TENANT:
            return True
        return self._monotonic() - offer.taken_at >= EVERY_S

    def learn(self, model: str, sku: str, sample: Sample) -> None:
        """Keep what a seller counted, unless no tokenizer could have."""
        if not _is_plausible(sample):
            return
        self._keep(model, sku, sample)
        self.fresh.setdefault((model, sku), []).append(sample)

    def replace(self, model: str, sku: str, samples: Iterable[Sample]) -> None:
        """What all processes learned, in place of what this one knew."""
        self._offers.pop((model, sku), None)
        for sample in samples:
            if _is_plausible(sample):
                self._keep(model, sku, sample)

    def _keep(self, model: str, sku: str, sample: Sample) -> None:
        offer = self._offers.setdefault((model, sku), _Offer())
        self._offers.move_to_end((model, sku))
        if len(self._offers) > OFFERS_MAX:
            self._offers.popitem(last=False)
        offer.add(sample)
        offer.taken_at = self._monotonic()

    def estimate(
        self, model: str, sku: str, tenant: int, shape: Shape, *, size: int, chunks: int = 0
    ) -> Estimate:
        """The tokens of a text of this shape. `chunks` where it came as a stream."""
        fit = self._fit_of(model, sku)
        if fit is None or fit.samples < MEASURED_FROM:
            return Estimate(_by_bytes(shape, size, chunks), basis.BYTES)
        if chunks and fit.one_each:
            return Estimate(chunks, basis.MEASURED)
        tokens = _dot(fit.weights, shape) * fit.own.get(tenant, 1.0)
        most = size * TOKENS_MOST_PER_BYTE + _overhead(shape)
        least = 1 if size else 0
        return Estimate(
            round(min(max(tokens, size * TOKENS_LEAST_PER_BYTE, least), most)), basis.MEASURED
        )

    def _fit_of(self, model: str, sku: str) -> _Fit | None:
        """Of the offer; where it was never measured, of another one of the same model."""
        offer = self._offers.get((model, sku))
        if offer is None or len(offer.samples) < MEASURED_FROM:
            others = [each for (of, _), each in self._offers.items() if of == model]
            offer = max(others, key=lambda each: len(each.samples), default=None)
        if offer is None:
            return None
        now = self._monotonic()
        news = (offer.version - offer.fit_version) * REFIT_SHARE >= len(offer.samples)
        is_stale = news and now - offer.fit_at >= REFIT_EVERY_S
        if offer.fit is None or is_stale:
            offer.fit, offer.fit_version, offer.fit_at = _fitted(offer.samples), offer.version, now
        return offer.fit


def _is_plausible(sample: Sample) -> bool:
    """A token is a byte at least, and hardly ever more than 16."""
    if sample.size < SIZE_LEAST or len(sample.shape) != CLASSES:
        return False
    most = sample.size * TOKENS_MOST_PER_BYTE + _overhead(sample.shape)
    return sample.size * TOKENS_LEAST_PER_BYTE <= sample.tokens <= most


def _overhead(shape: Shape) -> int:
    """What a template may put around messages, at most."""
    *_, messages, requests = shape
    return 16 * messages + 64 * requests


def _by_bytes(shape: Shape, size: int, chunks: int) -> int:
    """At four bytes a token; or a token a chunk, where chunks are as small as tokens are."""
    *_, messages, requests = shape
    if chunks and CHUNK_BYTES[0] * chunks <= size <= CHUNK_BYTES[1] * chunks:
        return chunks
    text = -(-size // shapes.BYTES_PER_TOKEN)
    return text + shapes.MESSAGE_TOKENS * messages + shapes.REQUEST_TOKENS * requests


def _fitted(samples: Sequence[Sample] | deque[Sample]) -> _Fit:
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
    return _Fit(
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
