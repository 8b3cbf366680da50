"""Which offers a model name means, and which names look like one that means none. Pure.

A name is a model (`gpt-4o`), an offer's sku (`openai/gpt-4o`, `in-house/smollm2/ngram`), or
the beginning of several skus (`in-house/smollm2`).
"""

import difflib
import heapq
import re
from collections.abc import Iterable, Mapping

from providers.chat import OfferView

OffersByModel = Mapping[str, tuple[OfferView, ...]]

NEAREST_MAX = 3
# difflib costs about 20 microseconds a pair: only the names that share most are compared.
COMPARED_MAX = 20
NAME_MAX = 200
PARTS_MAX = 8
_SEPARATORS = re.compile(r"[-/.:_ ]+")


def resolve(name: str, offers_by_model: OffersByModel) -> tuple[OfferView, ...]:
    """The offers that this name means; none where it is unknown."""
    offers = offers_by_model.get(name)
    if offers is not None:
        return offers
    _, _, rest = name.partition("/")
    while rest:
        found = tuple(o for o in offers_by_model.get(rest, ()) if matches(name, o))
        if found:
            return found
        rest = rest.rpartition("/")[0]
    return ()


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
