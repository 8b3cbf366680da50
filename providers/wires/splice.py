"""Building an upstream body out of the client's own, where both speak the same dialect.

Top-level fields that travel stay the bytes that the client sent; those that we decide are
written anew. A long prompt is copied, never decoded and written again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from providers.chat import ChatRequest, OfferView
from providers.errors import CannotSay
from providers.wires import body_fields

_encode = msgspec.json.Encoder().encode


def spliced(request: ChatRequest, offer: OfferView, decided: Mapping[str, Any]) -> bytes:
    """The client's body as far as this kind of seller is sent it, with what we decide in its place
    or behind."""
    passing = body_fields.passing(body_fields.seller_of(offer))
    body: dict[str, Any] = {
        name: value for name, value in request.fields.items() if name in passing or name in decided
    }
    body.update(decided)
    return _encode(body)


def translated(
    translate: Callable[[bytes], dict[str, Any]], body: bytes, decided: Mapping[str, Any]
) -> bytes:
    """A body put into another dialect, with our own fields over it.

    The surface checked what it acts on; what else is wrong in shape shows here.
    """
    try:
        target = translate(body)
    except (AttributeError, KeyError, TypeError, IndexError, RecursionError) as wrong:
        raise CannotSay(f"the request cannot be put into this provider's terms: {wrong}") from None
    target.update(decided)
    return _encode(target)
