"""Building an upstream body out of the client's own, where both speak the same dialect.

Top-level fields stay the bytes that the client sent; only those that must differ are
replaced. A long prompt is copied, never decoded and written again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from providers.chat import ChatRequest
from providers.errors import CannotSay

_encode = msgspec.json.Encoder().encode

# Fields that steer this gateway; vendors refuse or misread them.
OURS = frozenset(
    {
        "provider",
        "models",
        "session_id",
        "max_cost",
        "route",
        "transforms",
        "usage",
        "plugins",
        "tokenhouse",
    }
)


def spliced(
    request: ChatRequest, replaced: Mapping[str, Any], *, dropped: frozenset[str] = frozenset()
) -> bytes:
    """The client's body with these fields replaced, without the dropped and those meant for us."""
    body: dict[str, Any] = {
        name: value
        for name, value in request.fields.items()
        if name not in OURS and name not in dropped
    }
    body.update(replaced)
    return _encode(body)


def translated(
    translate: Callable[[bytes], dict[str, Any]], body: bytes, fields: Mapping[str, Any]
) -> bytes:
    """A body put into another dialect, with our own fields over it.

    The surface checked what it acts on; what else is wrong in shape shows here.
    """
    try:
        target = translate(body)
    except (AttributeError, KeyError, TypeError, IndexError, RecursionError) as wrong:
        raise CannotSay(f"the request cannot be put into this provider's terms: {wrong}") from None
    target.update(fields)
    return _encode(target)
