"""How often a password may be guessed, counted in Redis by window; a good sign-in does not count.

Three counts: of a name from one address, of a name from everywhere, of an address over all names.
The last two never stop who signed in from that address under that name before, so that nobody is
locked out by what strangers do to their name, or neighbours at their address.
"""

import hashlib
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from django.core.cache import cache

WINDOW_S: Final = 300
TRIES_PER_PAIR: Final = 10
TRIES_PER_NAME: Final = 50
TRIES_PER_ADDRESS: Final = 100
KNOWN_FOR_S: Final = 90 * 86_400
TOO_MANY: Final = "Too many tries. Wait five minutes and try again."
AWAY: Final = "Signing in is not possible right now. Try again."
# Whoever has one IPv6 address has its whole network.
IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class Try:
    """One try, counted before the password is looked at: so that many at once cannot pass."""

    may_go_on: bool
    counted: tuple[str, ...]
    known: str


def begin(*, address: str, username: str) -> Try:
    """Count a try and say whether it may go on. Redis errors are the caller's to answer."""
    name, place = username.strip().casefold(), _place(address)
    pair, known = _key("pair", place, name), _key("known", place, name)
    if _count(pair) > TRIES_PER_PAIR:
        # Not counted further: one address alone does not close a name for all others.
        return Try(False, (), known)
    by_name, by_address = _key("name", name), _key("address", place)
    within = _count(by_name) <= TRIES_PER_NAME
    within = _count(by_address) <= TRIES_PER_ADDRESS and within
    return Try(within or cache.get(known) is not None, (pair, by_name, by_address), known)


def succeeded(tried: Try) -> None:
    """The password was right: take the counts back, and know this person here."""
    for key in tried.counted:
        try:
            cache.decr(key)
        except ValueError:  # the window ended meanwhile
            continue
    cache.set(tried.known, 1, KNOWN_FOR_S)


def _place(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return address if found.version == 4 else str(ip_network((found, IPV6_PREFIX), strict=False))


def _key(kind: str, *who: str) -> str:
    digest = hashlib.sha256("\0".join(who).encode()).hexdigest()
    return f"sign-in:{kind}:{digest}"


def _count(key: str) -> int:
    cache.add(key, 0, WINDOW_S)
    try:
        return int(cache.incr(key))
    except ValueError:  # the window ended between the two calls
        return 1
