"""Why an offer is not tried: every code once, and whose doing it is. Pure.

What the caller hears when nothing can serve follows from the causes alone: only what passes by
itself is worth another call.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec


class Cause(Enum):
    """Whose doing it is, and so what would have to change."""

    REQUEST = "the request cannot be served here, whenever it is sent"
    FORBIDDEN = "the key or the tenant's policy does not allow it"
    CHOICE = "the caller's own choice of sellers and prices leaves it out"
    HOUSE = "nobody here sells it"
    AWAY = "it cannot be called for a while"
    COST = "it may cost more than somebody set"


class Rejection(msgspec.Struct, frozen=True):
    """An offer that will not be tried: `code` for machines, `reason` in words with figures.

    `retry_after_ms` is when it may be called again, where that passes by itself; `wanted` is how
    many tokens were too many for `room`."""

    sku: str
    provider: str
    code: str
    reason: str
    retry_after_ms: int = 0
    wanted: int = 0
    room: int = 0


CAUSES: Final[Mapping[str, Cause]] = {
    "context_too_short": Cause.REQUEST,
    "context_unknown": Cause.REQUEST,
    "capability": Cause.REQUEST,
    "dialect": Cause.REQUEST,
    "no_price": Cause.REQUEST,
    "thinking_cut": Cause.REQUEST,
    "model_not_allowed": Cause.FORBIDDEN,
    "not_pinned": Cause.FORBIDDEN,
    "provider_not_allowed": Cause.FORBIDDEN,
    "not_in_only": Cause.CHOICE,
    "ignored": Cause.CHOICE,
    "not_in_order": Cause.CHOICE,
    "fallbacks_off": Cause.CHOICE,
    "over_price_ceiling": Cause.CHOICE,
    "parameters": Cause.CHOICE,
    "not_routable": Cause.HOUSE,
    "away": Cause.AWAY,
    "breaker_open": Cause.AWAY,
    "over_cost_ceiling": Cause.COST,
    "over_budget": Cause.COST,
    "over_rate_limit": Cause.COST,
}

# What callers call the faults of their requests.
OWN_FAULTS: Final[Mapping[str, str]] = {
    "context_too_short": "context_length_exceeded",
    "context_unknown": "unsupported_by_model",
    "capability": "unsupported_by_model",
    "dialect": "unsupported_by_model",
    "no_price": "unpriced",
    "thinking_cut": "thinking_budget_too_large",
}
