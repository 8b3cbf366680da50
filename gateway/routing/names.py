"""Which offers a model name means, and which names look like one that means none. Pure.

A name is a model (`gpt-4o`), an offer's sku (`openai/gpt-4o`, `in-house/smollm2/ngram`), or
a seller and one of its models (`in-house/smollm2`). Nothing is guessed: an index knows every one.
"""

import difflib
import heapq
import re
from collections.abc import Iterable, Mapping

from providers.chat import OfferView


class OffersByModel(dict[str, tuple[OfferView, ...]]):
    """The offers of each model, and an index of everything else that they are called."""

    def __init__(self, by_model: Mapping[str, tuple[OfferView, ...]] | None = None) -> None:
        super().__init__(by_model or {})
        named: dict[str, tuple[OfferView, ...]] = {}
        offers = [offer for group in self.values() for offer in group]
        for offer in offers:
            name = f"{offer.provider}/{offer.model}"
            named[name] = (*named.get(name, ()), offer)
        # An offer's own name comes before one that is put together.
        own = {offer.sku: (offer,) for offer in offers}
        self._named = {name: found for name, found in named.items() if name not in own} | own

    def named(self, name: str) -> tuple[OfferView, ...]:
        """The offers that this name means; none where it is unknown."""
        return self.get(name) or self._named.get(name, ())


NEAREST_MAX = 3
# difflib costs about 20 microseconds a pair: only the names that share most are compared.
COMPARED_MAX = 20
NAME_MAX = 200
PARTS_MAX = 8
_SEPARATORS = re.compile(r"[-/.:_ ]+")


def matches(token: str, offer: OfferView) -> bool:
    """Whether a caller's word for a seller means this offer: provider, sku, or its beginning."""
    return (
        token == offer.provider
        or token == offer.sku
        or offer.sku.startswith(f"{token}/")
        or token.lower() in (offer.provider, offer.provider_name.lower())
    )


def nearest(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Up to three existing names that look like this one, the most similar first."""
    name = name[:NAME_MAX].lower()
    parts = [part for part in _SEPARATORS.split(name)[:PARTS_MAX] if len(part) > 1]
    likely = []
    for other in known:
        shared = 0
        for part in parts:
            if part in other:
                shared += 1
        if shared or other[:3] == name[:3]:
            likely.append((-shared, abs(len(other) - len(name)), other))
    closest = [other for _, _, other in heapq.nsmallest(COMPARED_MAX, likely)]
    return tuple(difflib.get_close_matches(name, closest, n=NEAREST_MAX, cutoff=0.5))
