"""Keeps strangers from using up the door: connections without a request yield to those with one.

The server offers no say in which connections it keeps, so their sockets are looked at from
outside: first their bare number, several times a second, and each of them only where that is high.
Of those in no request, the ones that have been silent for longest are closed: beyond a share of
what one address may have, and beyond half of what there is room for. What the server has read may
not have begun here yet where the machine is slow, so they are closed at the look after the one that
chose them, if they are still silent and in no request. Requests beyond what there are descriptors
for are told so.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import struct
import termios
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.dataplane.inbound.descriptors import Room
from gateway.errors import Unavailable

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
# What has just been accepted may be about to say what it wants.
GRACE_MS: Final = 1_000
GRACE_IN_NEED_MS: Final = 100
ADDRESS_SHARE: Final = 8
# By how much two looks may differ over when a connection was last heard.
SAME_MOMENT_MS: Final = 50
# struct tcp_info: eight bytes, then 32-bit words; the times are milliseconds ago.
_TCP_INFO_BYTES: Final = 104
_SENT_WORD, _HEARD_WORD = 8 + 4 * 9, 8 + 4 * 11

Peer = tuple[str, int]


class _Inbound(NamedTuple):
    """A connection: its descriptor, its other end, for how long nothing was heard or said, since
    which moment that is, and how many bytes nobody has read yet."""

    descriptor: int
    peer: Peer
    silent_ms: int
    since_ms: int
    unread: int


class Door:
    """`enter` and `leave` frame each request; `check` refuses those beyond the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._quiet = room.connections_max // 2
        self._per_address = max(room.connections_max // ADDRESS_SHARE, 1)
        self._busy: Counter[Peer] = Counter()
        self._chosen_before: dict[Peer, int] = {}  # since when each was silent
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    def close(self) -> None:
        if self._watching:
            self._watching.cancel()

    def enter(self, peer: Peer | None) -> None:
        if peer is not None:
            self._busy[_named(peer)] += 1

    def leave(self, peer: Peer | None) -> None:
        if peer is not None:
            name = _named(peer)
            self._busy[name] -= 1
            if self._busy[name] <= 0:
                del self._busy[name]

    def check(self) -> None:
        """Unavailable where this request is one more than there are descriptors for."""
        if len(self._busy) > self._room.requests_max:
            raise Unavailable(
                f"This process serves {self._room.requests_max} requests at a time and has no "
                "descriptors for more. Try again shortly.",
                code="too_many_connections",
            )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if len(os.listdir("/proc/self/fd")) > min(self._per_address, self._quiet):
                closed = await asyncio.to_thread(self.make_room)
                if closed:
                    logger.warning("closed %d connections without a request", closed)
            else:
                self._chosen_before = {}

    def make_room(self) -> int:
        """One look; returns how many it closed."""
        found = _inbound()
        idle = sorted(
            (each for each in found if each.peer not in self._busy and not each.unread),
            key=lambda each: -each.silent_ms,
        )
        chosen = self._chosen(idle, beyond=len(found) - self._quiet)
        due = [each for each in chosen if self._was_chosen(each)]
        self._chosen_before = {each.peer: each.since_ms for each in chosen}
        return sum(_shut(each) for each in due if each.peer not in self._busy)

    def _was_chosen(self, each: _Inbound) -> bool:
        """Also at the last look, and nothing was heard of it since."""
        before_ms = self._chosen_before.get(each.peer)
        return before_ms is not None and abs(each.since_ms - before_ms) <= SAME_MOMENT_MS

    def _chosen(self, idle: list[_Inbound], *, beyond: int) -> list[_Inbound]:
        """The longest silent, as many as are too many: of one address, and of all."""
        in_need = beyond > self._room.connections_max // 4
        grace_ms = GRACE_IN_NEED_MS if in_need else GRACE_MS
        of_address = Counter(each.peer[0] for each in idle)
        taken: defaultdict[str, int] = defaultdict(int)
        chosen: list[_Inbound] = []
        for each in idle:
            host = each.peer[0]
            is_over = of_address[host] - taken[host] > self._per_address
            if each.silent_ms > grace_ms and (is_over or len(chosen) < beyond):
                taken[host] += 1
                chosen.append(each)
        return chosen


def _named(peer: Peer) -> Peer:
    return peer[0].removeprefix("::ffff:"), int(peer[1])


def _inbound() -> list[_Inbound]:
    """What came in by a port that this process listens at."""
    accepted: list[tuple[int, _Inbound]] = []
    ports: set[int] = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError, ValueError), _opened(int(name)) as candidate:
            port = candidate.getsockname()[1]
            if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                ports.add(port)
            else:
                accepted.append((port, _looked_at(int(name), candidate)))
    return [each for port, each in accepted if port in ports]


def _looked_at(descriptor: int, candidate: socket.socket) -> _Inbound:
    peer, silent_ms = _named(candidate.getpeername()), _silent_ms(candidate)
    since_ms = time.monotonic_ns() // 1_000_000 - silent_ms
    (unread,) = struct.unpack("i", fcntl.ioctl(candidate, termios.FIONREAD, b"\0" * 4))
    return _Inbound(descriptor, peer, silent_ms, since_ms, unread)


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket]:
    """A second descriptor of a TCP socket: whatever the server closes meanwhile, it stays what it
    is here. ValueError where it is none. One at a time: descriptors are what is short."""
    if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
        raise ValueError(f"{descriptor} is no socket")
    with socket.socket(fileno=os.dup(descriptor)) as second:
        if second.family not in {socket.AF_INET, socket.AF_INET6}:
            raise ValueError(f"{descriptor} is no TCP socket")
        yield second


def _silent_ms(candidate: socket.socket) -> int:
    info = candidate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (sent_ms,) = struct.unpack_from("I", info, _SENT_WORD)
    (heard_ms,) = struct.unpack_from("I", info, _HEARD_WORD)
    return int(min(sent_ms, heard_ms))


def _shut(chosen: _Inbound) -> bool:
    """The server sees an end and closes it. False where the descriptor is another's by now."""
    with contextlib.suppress(OSError, ValueError), _opened(chosen.descriptor) as candidate:
        if _named(candidate.getpeername()) == chosen.peer:
            candidate.shutdown(socket.SHUT_RDWR)
            return True
    return False
