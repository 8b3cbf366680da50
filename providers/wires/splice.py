"""Building an upstream body out of the client's own, where both speak the same dialect.

Top-level fields that travel stay the bytes that the client sent; those that we decide are
written anew. A long prompt is copied, never decoded and written again.
"""

from collections.abc import Mapping, Sequence

import msgspec

from providers.chat import ChatRequest, OfferView
from providers.wires import body_fields

# A field of ours: what it is, or the JSON of it.
Decided = str | int | bool | Mapping[str, bool | msgspec.Raw] | Sequence[msgspec.Raw]

_encode = msgspec.json.Encoder().encode


def spliced(request: ChatRequest, offer: OfferView, decided: Mapping[str, Decided]) -> bytes:
    """The client's body as far as this kind of seller is sent it, with what we decide in its place
    or behind."""
    passing = body_fields.passing(body_fields.seller_of(offer))
    body: dict[str, Decided | msgspec.Raw] = {
        name: value for name, value in request.fields.items() if name in passing or name in decided
    }
    body.update(decided)
    return _encode(body)
