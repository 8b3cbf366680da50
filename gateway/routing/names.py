"""Which offers a model name means, and which names look like one that means none. Pure.

A name is a model (`gpt-4o`), an offer's sku (`openai/gpt-4o`, `in-house/smollm2/ngram`), or
the beginning of several skus (`in-house/smollm2`).
"""

import difflib
from collections.abc import Iterable, Mapping

from providers.chat import OfferView

OffersByModel = Mapping[str, tuple[OfferView, ...]]

NEAREST_MAX = 3
# difflib costs about 20 microseconds a pair: only names that share a part are compared.
COMPARED_MAX = 60


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
    name = name[:200].lower()
    parts = {part for part in _parts(name) if len(part) > 1}
    shared = [(len(parts.intersection(_parts(other))), other) for other in known]
    likely = sorted(
        (pair for pair in shared if pair[0] or pair[1][:3] == name[:3]),
        key=lambda pair: (-pair[0], abs(len(pair[1]) - len(name)), pair[1]),
    )
    return tuple(
        difflib.get_close_matches(
            name, [other for _, other in likely[:COMPARED_MAX]], n=NEAREST_MAX, cutoff=0.5
        )
    )


def _parts(name: str) -> list[str]:
    for separator in "/.:_":
        name = name.replace(separator, "-")
    return name.split("-")
