"""Texts that a seller counted, as far as tokenizers care: features and counts, never the text.

A usage event carries a few of them, so that each process estimates by what all have seen. Of an
offer the newest are kept, and of one tenant at most its share. Pure.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

SAMPLES_MAX: Final = 192  # of one offer
SAMPLES_OF_TENANT_MAX: Final = 48


class Sample(NamedTuple):
    """A counted text. `shape` are its features (`gateway.estimates.text_features`); `chunks` is in
    how many pieces it was streamed, 0 where it was not."""

    shape: tuple[int, ...]
    size: int
    tokens: int
    tenant: int
    chunks: int = 0


class Samples:
    """Those of one offer, the oldest first; bounded."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples: deque[Sample] = deque()
        self._tenants: Counter[int] = Counter()
        for sample in samples:
            self.add(sample)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def lacks(self, tenant: int, least: int) -> bool:
        """Whether this tenant's share of what is kept, or `least`, is not reached."""
        tenants = len(self._tenants) + (tenant not in self._tenants)
        return self._tenants[tenant] < min(least, SAMPLES_MAX // (2 * tenants))

    def add(self, sample: Sample) -> None:
        """A tenant that has many gives up its own oldest, else the oldest of all goes."""
        self._samples.append(sample)
        self._tenants[sample.tenant] += 1
        oldest = None
        if self._tenants[sample.tenant] > SAMPLES_OF_TENANT_MAX:
            oldest = next(each for each in self._samples if each.tenant == sample.tenant)
        elif len(self._samples) > SAMPLES_MAX:
            oldest = self._samples[0]
        if oldest is not None:
            self._samples.remove(oldest)
            self._tenants -= Counter([oldest.tenant])  # and whom nothing is kept of is forgotten


packed = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Sample]).decode


def unpacked(data: bytes) -> list[Sample]:
    """None where another release wrote them otherwise: they are learned anew."""
    try:
        return _unpack(data)
    except msgspec.MsgspecError:
        return []
