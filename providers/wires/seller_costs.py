"""What a seller says of money in its answer stays between it and the house: it is what we pay.

Sellers put it anywhere: `usage.cost_details` (OpenRouter), `cost_in_usd_ticks` (x-ai),
`provider_metadata.gateway.marketCost` (Vercel), `x_nanogpt_pricing`. So names decide, at any depth
but inside what the model itself wrote. The tenant's own cost is written in the end, by us.
"""

import json
from typing import Final

from providers.json_values import JsonValue

# Parts of names, folded.
MONEY: Final = (
    "cost",
    "pric",
    "usd",
    "dollar",
    "byok",
    "credit",
    "balance",
    "billing",
    "billed",
    "charge",
    "discount",
    "margin",
)
_MONEY_BYTES: Final = tuple(word.encode() for word in MONEY)
# What the model said: texts are never looked into, and neither are the objects of its tool calls.
SAID: Final = frozenset({"content", "input", "arguments", "partial_json", "logprobs"})


def names_money(name: str) -> bool:
    folded = name.casefold()
    return any(word in folded for word in MONEY)


def without(data: bytes) -> bytes:
    """A JSON document without sums; the very same bytes where it has none."""
    folded = data.lower()
    if not any(word in folded for word in _MONEY_BYTES):
        return data
    try:
        # Not the fast decoder: half a surrogate pair is a text to this one.
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    kept = kept_of(document)
    return data if kept == document else json.dumps(kept, separators=(",", ":")).encode()


def kept_of(value: JsonValue) -> JsonValue:
    """A decoded part of an answer without sums."""
    if isinstance(value, dict):
        return {
            name: part if name in SAID else kept_of(part)
            for name, part in value.items()
            if not names_money(name)
        }
    if isinstance(value, list):
        return [kept_of(part) for part in value]
    return value
