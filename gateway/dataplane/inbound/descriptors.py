"""How many connections and requests a process has descriptors for. No Django, no I/O but limits.

A request takes two, its caller's and its seller's. Connections without a request may have the
rest: who is one too many must still be let in to hear so.
"""

import resource
from typing import Final, NamedTuple

# Files, logs, Redis, PostgreSQL, listeners, the interpreter's own.
KEPT: Final = 64
DESCRIPTORS_MAX: Final = 65_536
LEAST: Final = 16


class Room(NamedTuple):
    connections_max: int
    requests_max: int


def raise_limit() -> int:
    """As many descriptors as this user may have; returns how many those are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return min(soft, DESCRIPTORS_MAX) if soft != resource.RLIM_INFINITY else DESCRIPTORS_MAX
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def room(descriptors: int, *, wished: int) -> Room:
    """What fits, and at most as many connections as were wished for."""
    free = max(descriptors - KEPT, 3 * LEAST)
    connections = min(wished, free * 2 // 3)
    return Room(connections_max=connections, requests_max=min(connections, free // 3))
