"""Which errors of the machine are our own, and say nothing of whom we wanted to call. Pure."""

import errno
import socket

# No descriptors, no memory for sockets, no ports left, no network to send by.
_ERRNOS = frozenset(
    {
        errno.EADDRNOTAVAIL,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)
# The resolver could not ask, or got no answer; that a name does not exist is one.
_RESOLVER = frozenset({socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_MEMORY, socket.EAI_SYSTEM})


def is_own(problem: OSError) -> bool:
    """Several addresses tried in vain come as one error whose parts are in its text alone; sockets
    that could not be made come as themselves."""
    if isinstance(problem, socket.gaierror):
        return problem.errno in _RESOLVER
    return problem.errno in _ERRNOS
