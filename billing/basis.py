"""Where token counts come from, and how far they can be believed: one list for all. Pure.

A count is the seller's or the engine's own, or it is estimated. An estimate is charged as one and
trued up where a count arrives later. The best first; the words stand in usage events.
"""

from collections.abc import Mapping
from typing import Final

PROVIDER: Final = "provider"  # the seller's own count of what it delivered
ENGINE: Final = "engine"  # an in-house engine's count up to the last token that was delivered
RECOUNTED: Final = "recounted"  # our count of the same text, with the model's own tokenizer
MEASURED: Final = "measured_ratio"  # by what answers of this model counted for such text
BYTES: Final = "bytes"  # four bytes a token: nothing is known of this model
NONE: Final = "none"  # nothing was counted, and nothing is charged

BEST_FIRST: Final = (PROVIDER, ENGINE, RECOUNTED, MEASURED, BYTES, NONE)
ESTIMATES: Final = (RECOUNTED, MEASURED, BYTES)
# What a person is told of each.
WORDS: Final[Mapping[str, str]] = {
    PROVIDER: "counted by the seller",
    ENGINE: "counted by our engine",
    RECOUNTED: "recounted with the model's tokenizer",
    MEASURED: "estimated from what this model counted for such text",
    BYTES: "estimated at four bytes a token",
    NONE: "nothing to count",
    "counted": "counted by the gateway",
    "estimated": "estimated by the gateway",
}
CONFIDENCE: Final[Mapping[str, str]] = {
    PROVIDER: "exact",
    ENGINE: "exact",
    RECOUNTED: "high",
    MEASURED: "medium",
    BYTES: "low",
}


def weaker(one: str, other: str) -> str:
    """What two counts together rest on."""
    return max(one, other, key=BEST_FIRST.index)


def is_estimate(basis: str) -> bool:
    return basis in ESTIMATES
