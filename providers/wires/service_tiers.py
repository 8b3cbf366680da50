"""Service tiers in vendors' words, and as the numbers that prices are kept under. Pure.

The tier that a vendor says it served is the one that is billed; a word that is not known here
names a tier without a price.
"""

from collections.abc import Mapping
from typing import Final

from billing.kinds import ServiceTier

DEFAULT, FLEX, PRIORITY, BATCH = (tier.value for tier in ServiceTier)
UNKNOWN: Final = -1
STANDARD: Final = "standard"
WORD_LENGTH_MAX: Final = 40

# OpenAI and its likenesses, Anthropic (standard), Groq (on_demand). OpenAI renamed priority to
# fast. An answer that says "auto" repeats the question and tells nothing.
SERVED: Final[Mapping[str, int]] = {
    **{tier.word: tier.value for tier in ServiceTier},
    STANDARD: DEFAULT,
    "on_demand": DEFAULT,
    "fast": PRIORITY,
}
# What may be billed for a request that asked for a tier. A vendor that has no room for a priority
# request serves and bills it as a plain one; nothing falls to a dearer tier.
BILLABLE: Final[Mapping[int, tuple[int, ...]]] = {
    DEFAULT: (DEFAULT,),
    FLEX: (FLEX,),
    PRIORITY: (PRIORITY, DEFAULT),
    BATCH: (BATCH,),
}

# What callers may ask for: a tier, or to leave it to us.
ASKED: Final[Mapping[str, int]] = {
    **dict.fromkeys(("auto", ServiceTier.DEFAULT.word, STANDARD, "standard_only"), DEFAULT),
    **{tier.word: tier.value for tier in ServiceTier if tier != DEFAULT},
}


def stated(word: object) -> str:
    """The tier that an answer names, in lower case; empty where it names none."""
    if word is None or word in ("", "auto"):
        return ""
    return word.lower()[:WORD_LENGTH_MAX] if isinstance(word, str) else "unreadable"


def served(word: str, *, asked: int) -> int:
    """The number of the tier that served; what was asked for where the vendor does not say."""
    return SERVED.get(word, UNKNOWN) if word else asked
