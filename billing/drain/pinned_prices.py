"""The price versions that a drain meets, each read once: a version's rates never change."""

from collections.abc import Iterable, Mapping

from billing.drain import assessment
from billing.holding.usage_stream import StreamEntry
from billing.prices import versions as prices
from billing.rating import Price


class PinnedPrices:
    """Kept for one run of the drain, whose events name few versions again and again.

    The posting thread reads versions; the reading thread only looks at `known`.
    """

    def __init__(self) -> None:
        self.known: Mapping[int, Price] = {}

    def has_all_of(self, entries: Iterable[StreamEntry]) -> bool:
        return _named(entries) <= self.known.keys()

    def of(self, entries: Iterable[StreamEntry]) -> Mapping[int, Price]:
        """At least every version that these entries name and that exists."""
        missing = {
            version
            for version in _named(entries) - self.known.keys()
            if 0 < version <= assessment.BIGINT_MAX
        }
        if missing:
            self.known = {**self.known, **prices.by_version(missing)}
        return self.known


def _named(entries: Iterable[StreamEntry]) -> set[int]:
    distinct = {(entry.event.prices, entry.event.price) for entry in entries}
    named = {version for versions, _ in distinct for version in versions}
    return named | {price for _, price in distinct if price is not None}
