"""How many tokens a text is, where nobody counted it: by what its model counted for others.

For each offer the newest answers with counts are kept, and least squares over them (`fits`) say
what each letter, word, digit or mark costs in tokens there. What one process learns travels in its
usage events and comes back to all with the snapshot, so that a restarted process, or another one,
estimates as the first did. A ratio of a model is no secret: a tenant's first call rests on what the
others' answers were.
"""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from billing import basis
from billing.samples import SAMPLES_OF_TENANT_MAX, Sample, Samples, unpacked
from gateway.estimates import fits, text_features
from gateway.estimates.fits import MEASURED_FROM, Fit
from gateway.estimates.text_features import Shape

OFFERS_MAX: Final = 2_000
# Taken as they come; afterwards one in a while. A single tenant's share is enough of them: else a
# house of one tenant would learn of each of its answers.
EAGER_SAMPLES: Final = SAMPLES_OF_TENANT_MAX
EAGER_SAMPLES_OF_TENANT: Final = 8
EVERY_S: Final = 5.0
REFIT_EVERY_S: Final = 1.0
REFIT_SHARE: Final = 8  # of the samples, so many in one must be new
# What was learned here and has not come back from all by then does not come any more.
UNSHARED_MAX: Final = EAGER_SAMPLES
UNSHARED_S: Final = 120.0
# How many other sellers of a model are asked where one was never measured: the middle one counts.
OTHERS_MAX: Final = 5
# A chunk of so many bytes is probably one token.
CHUNK_BYTES: Final = (2, 8)

Key = tuple[str, str]  # model, sku


class Estimate(NamedTuple):
    tokens: int
    basis: str


@dataclass(slots=True)
class _Offer:
    """`packed` is what all had learned when this was made of it; `unshared` what was learned here
    and is not among that yet, with when."""

    samples: Samples = field(default_factory=Samples)
    packed: bytes = b""
    unshared: deque[tuple[float, Sample]] = field(
        default_factory=lambda: deque(maxlen=UNSHARED_MAX)
    )
    version: int = 0
    taken_at: float = 0.0
    fit: Fit | None = None
    fit_version: int = -1
    fit_at: float = 0.0

    def learn(self, sample: Sample, now: float) -> None:
        self.samples.add(sample)
        self.unshared.append((now, sample))
        self.version += 1
        self.taken_at = now

    def take(self, packed: bytes, now: float) -> None:
        """What all have learned, in place of what was known here but what is on its way to them."""
        shared = [sample for sample in unpacked(packed) if fits.is_plausible(sample)]
        known, before = set(shared), set(self.samples)
        on_its_way = [
            (at, each) for at, each in self.unshared if each not in known and now - at < UNSHARED_S
        ]
        self.unshared.clear()
        self.unshared.extend(on_its_way)
        self.samples = Samples([*shared, *(sample for _, sample in on_its_way)])
        self.version += len(set(self.samples) - before)
        self.packed = packed


class Ratios:
    """What one process knows; bounded. Called from its event loop only."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._offers: OrderedDict[Key, _Offer] = OrderedDict()
        self._shared: Mapping[Key, bytes] = {}
        self._skus: dict[str, set[str]] = defaultdict(set)  # by model; of all that is known

    def share(self, shared: Mapping[Key, bytes]) -> None:
        """What all processes have learned by now, packed; looked into where it is asked for."""
        self._shared = shared
        self._skus.clear()
        for model, sku in (*shared, *self._offers):
            self._skus[model].add(sku)

    def wants(self, model: str, sku: str, tenant: int) -> bool:
        """Whether another answer of this offer would teach something; cheap to ask."""
        offer = self._known(model, sku)
        if offer is None or len(offer.samples) < EAGER_SAMPLES:
            return True
        if offer.samples.lacks(tenant, EAGER_SAMPLES_OF_TENANT):
            return True
        return self._monotonic() - offer.taken_at >= EVERY_S

    def learn(self, model: str, sku: str, sample: Sample) -> bool:
        """Keep what a seller counted; False where no tokenizer could have."""
        if not fits.is_plausible(sample):
            return False
        offer = self._known(model, sku) or self._made(model, sku)
        offer.learn(sample, self._monotonic())
        return True

    def estimate(
        self, model: str, sku: str, tenant: int, shape: Shape, *, size: int, chunks: int = 0
    ) -> Estimate:
        """The tokens of a text of this shape. `chunks` where it came as a stream."""
        found = sorted(
            fit.tokens(tenant, shape, size=size, chunks=chunks) for fit in self._fits_of(model, sku)
        )
        if not found:
            return Estimate(_by_bytes(shape, size, chunks), basis.BYTES)
        return Estimate(found[(len(found) - 1) // 2], basis.MEASURED)

    def _known(self, model: str, sku: str) -> _Offer | None:
        """With what all have learned of it."""
        offer, packed = self._offers.get((model, sku)), self._shared.get((model, sku))
        if offer is not None:
            self._offers.move_to_end((model, sku))
        if packed is None or (offer is not None and offer.packed is packed):
            return offer
        offer = offer or self._made(model, sku)
        offer.take(packed, self._monotonic())
        return offer

    def _made(self, model: str, sku: str) -> _Offer:
        offer = self._offers[model, sku] = _Offer()
        self._skus[model].add(sku)
        if len(self._offers) > OFFERS_MAX:
            self._offers.popitem(last=False)
        return offer

    def _fits_of(self, model: str, sku: str) -> list[Fit]:
        """Of the offer; where it was never measured, of others of the same model: no seller alone
        says what another's text is."""
        offer = self._known(model, sku)
        if offer is not None and len(offer.samples) >= MEASURED_FROM:
            return [self._fit(offer)]
        others = [self._known(model, other) for other in self._skus.get(model, ())]
        measured = [each for each in others if each and len(each.samples) >= MEASURED_FROM]
        measured.sort(key=lambda each: len(each.samples), reverse=True)
        return [self._fit(each) for each in measured[:OTHERS_MAX]]

    def _fit(self, offer: _Offer) -> Fit:
        now = self._monotonic()
        news = (offer.version - offer.fit_version) * REFIT_SHARE >= len(offer.samples)
        is_stale = news and now - offer.fit_at >= REFIT_EVERY_S
        if offer.fit is None or is_stale:
            offer.fit = fits.fitted(list(offer.samples))
            offer.fit_version, offer.fit_at = offer.version, now
        return offer.fit


def _by_bytes(shape: Shape, size: int, chunks: int) -> int:
    """At four bytes a token; or a token a chunk, where chunks are as small as tokens are."""
    *_, messages, requests = shape
    if chunks and CHUNK_BYTES[0] * chunks <= size <= CHUNK_BYTES[1] * chunks:
        return chunks
    text = -(-size // text_features.BYTES_PER_TOKEN)
    return text + text_features.MESSAGE_TOKENS * messages + text_features.REQUEST_TOKENS * requests
