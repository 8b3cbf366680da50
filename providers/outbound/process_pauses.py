"""What a time limit means to a process that stood still while it ran out.

Its timers are due before it has seen what came meanwhile: that limit was passed by nobody else.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

# What comes so much later than it was due tells that this process stood still.
STILL_S: Final = 1.0


async def once_more_if_still(
    act: Callable[[], Awaitable[T]], *, limit_s: float, monotonic: Callable[[], float]
) -> T:
    """What `act` comes to, which raises TimeoutError after `limit_s`; tried once more where that
    was heard much later than it was due."""
    began = monotonic()
    try:
        return await act()
    except TimeoutError:
        if monotonic() - began <= limit_s + STILL_S:
            raise
    return await act()
