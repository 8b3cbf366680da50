"""How often a password may be guessed: counted per address and per name, in Redis, by window."""

import hashlib
from typing import Final

from django.core.cache import cache

WINDOW_S: Final = 300
TRIES_PER_NAME: Final = 10
TRIES_PER_ADDRESS: Final = 40


def count_try(*, address: str, username: str) -> bool:
    """Count one try and say whether it may go on. Redis errors are the caller's to answer."""
    tries_of_name = _count("name", f"{address} {username.strip().lower()}")
    tries_of_address = _count("address", address)
    return tries_of_name <= TRIES_PER_NAME and tries_of_address <= TRIES_PER_ADDRESS


def _count(kind: str, who: str) -> int:
    key = f"sign-in:{kind}:{hashlib.sha256(who.encode()).hexdigest()}"
    cache.add(key, 0, WINDOW_S)
    try:
        return int(cache.incr(key))
    except ValueError:  # the window ended between the two calls
        return 1
