"""Which connections are closed to make room, by real sockets of this process."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from gateway.dataplane.inbound.descriptors import Room
from gateway.dataplane.inbound.idle_connections import Door, Peer
from tests.patience import eventually

CONNECTIONS = 40
ROOM = Room(connections_max=16, requests_max=8)


@pytest.fixture
def connections() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Clients and what a server has accepted of them; nobody has said a word."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        pairs = []
        for _ in range(CONNECTIONS):
            client = opened.enter_context(socket.create_connection(listener.getsockname()))
            accepted = opened.enter_context(listener.accept()[0])
            client.setblocking(False)
            pairs.append((client, accepted))
        yield pairs


def is_open(client: socket.socket) -> bool:
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True


def peer(client: socket.socket) -> Peer:
    host, port = client.getsockname()
    return host, port


def test_who_spoke_since_the_look_before_is_not_closed(
    connections: list[tuple[socket.socket, socket.socket]],
) -> None:
    # given: a look that found all of them silent, and closed nobody yet
    door = Door(ROOM)
    closed = 0

    def has_chosen() -> bool:
        nonlocal closed
        closed += door.make_room()
        return bool(door._chosen_before)

    eventually(has_chosen)
    assert closed == 0
    # when: the server had read a request of one, another speaks now, and a third has spoken and
    # was read
    (begun, _), (speaking, _), (read, reads), *others = connections
    door.enter(peer(begun))
    speaking.send(b"GET /")
    read.send(b"GET /")
    reads.recv(5)
    eventually(lambda: not all(is_open(client) for client, _ in others) or door.make_room())
    # then
    assert [is_open(client) for client in (begun, speaking, read)] == [True] * 3
    assert not all(is_open(client) for client, _ in others)
