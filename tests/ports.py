"""Ports for servers that tests start: nobody else gets one between its choice and its use, nor
while its server is killed and started again.

They lie below those that the kernel gives to connections and to whoever asks for any, and each is
locked for as long as this process lives, which keeps sessions side by side apart.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

LOWEST: Final = 10_000
GIVEN_BY_KERNEL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOCKS: Final = Path(tempfile.gettempdir()) / f"tokenhouse-ports-{os.getuid()}"
_locks: dict[int, int] = {}  # port -> descriptor, open until the end


def free_port() -> int:
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> tuple[int, ...]:
    """So many neighbours."""
    highest = max(int(GIVEN_BY_KERNEL.read_text().split()[0]), 2 * LOWEST) - count
    while True:
        first = random.randint(LOWEST, highest)
        wanted = tuple(range(first, first + count))
        if all(_is_ours(port) for port in wanted):
            return wanted


def _is_ours(port: int) -> bool:
    """Locks it; False where it is somebody's, of another session or of this one."""
    if port in _locks or not _can_be_bound(port):
        return False
    LOCKS.mkdir(exist_ok=True)
    descriptor = os.open(LOCKS / str(port), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _locks[port] = descriptor
    return True


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
