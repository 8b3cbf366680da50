"""The price versions that a drain meets, each read once: a version's rates never change."""

from collections.abc import Iterable, Mapping

from billing import assessment, prices
from billing.rating import Price
from billing.usage_stream import StreamEntry


class PinnedPrices:
    """Kept for one run of the drain, whose events name few versions again and again."""

    def __init__(self) -> None:
        self._read: dict[int, Price] = {}

    def of(self, entries: Iterable[StreamEntry]) -> Mapping[int, Price]:
        """At least every version that these entries name and that exists."""
        named = {entry.event.prices for entry in entries}
        wanted = {version for versions in named for version in versions}
        wanted |= {entry.event.price for entry in entries if entry.event.price is not None}
        missing = {v for v in wanted - self._read.keys() if 0 < v <= assessment.BIGINT_MAX}
        if missing:
            self._read |= prices.by_version(missing)
        return self._read
