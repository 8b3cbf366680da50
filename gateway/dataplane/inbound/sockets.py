"""Closes one client's connection from outside the server, which offers no way to do it.

Rare and slow by nature (a look at every open descriptor): only for callers that stopped
reading, whose connection would otherwise stay open with megabytes in the kernel.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path

_DROP_UNSENT = struct.pack("ii", 1, 0)


def cut(host: str, port: int) -> bool:
    """Reset the TCP connection whose peer is this address; True if there was one."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError, ValueError):
            if Path(f"/proc/self/fd/{name}").readlink().as_posix().startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as candidate:
                    if _is_peer(candidate, host, port):
                        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)
                        candidate.shutdown(socket.SHUT_RDWR)
                        return True
    return False


def _is_peer(candidate: socket.socket, host: str, port: int) -> bool:
    if candidate.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    name = candidate.getpeername()
    return bool(name[1] == port and name[0].removeprefix("::ffff:") == host)
