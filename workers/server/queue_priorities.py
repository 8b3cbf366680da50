"""Words for a place in the queue, and the numbers that the scheduler orders by: lower goes first.

`service_tier` takes these words as OpenAI's does, `priority` takes them too, or a number between.
"""

from typing import Final

from workers.server.errors import BadRequest

TIERS: Final = {"priority": -100, "default": 0, "auto": 0, "flex": 100, "batch": 200}


def rank(word: str, *, param: str) -> int:
    """The word's number; BadRequest with the known words for another one."""
    if word not in TIERS:
        raise BadRequest(
            f"{param} is {word[:40]!r}; known are {', '.join(TIERS)}",
            code="invalid_value",
            param=param,
        )
    return TIERS[word]
