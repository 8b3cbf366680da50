"""Fifty clients that never read: cut within a byte budget, paid for what they took, and no more."""

import json
import os
import socket
from pathlib import Path

from tests.e2e.house import OPENAI, Customer, House, question

CLIENTS = 50
BYTES_PER_CLIENT_MAX = 1_800_000


def _resident_bytes(house: House) -> int:
    """Of all data plane processes, the server's own parent included."""
    group = house.stack.children()["dataplane"]
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    total += int((entry / "statm").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total * os.sysconf("SC_PAGE_SIZE")


def _send(house: House, customer: Customer) -> socket.socket:
    """A request whose answer nobody ever reads, on a socket that takes little."""
    body = json.dumps(question("fox-flood", stream=True, max_tokens=4000)).encode()
    host, _, port = house.stack.api.removeprefix("http://").partition(":")
    head = (
        f"POST {OPENAI} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {customer.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    client = socket.create_connection((host, int(port)))
    client.sendall(head.encode() + body)
    return client


def test_fifty_clients_that_never_read_are_cut_and_settled_in_bounded_memory(
    house: House,
) -> None:
    # given
    customer = house.customer(credit_pico=10**14)
    assert house.ask(OPENAI, question(), customer.headers).status_code == 200
    house.until_booked(customer, events=1)
    before = peak = _resident_bytes(house)

    # when
    clients = [_send(house, customer) for _ in range(CLIENTS)]
    try:

        def are_posted() -> bool:
            nonlocal peak
            peak = max(peak, _resident_bytes(house))
            return len(house.posted(customer)) == CLIENTS + 1

        house.stack.eventually(are_posted)
    finally:
        for client in clients:
            client.close()

    # then every one of them was cut and is paid for, and nothing is held any more
    assert peak - before < CLIENTS * BYTES_PER_CLIENT_MAX
    outcomes = [outcome for outcome, _, _ in house.posted(customer)][1:]
    assert outcomes == ["client_stalled"] * CLIENTS
    assert all(cost > 0 for _, cost, _ in house.posted(customer))
    assert house.register(customer)["held"] == 0
    house.stack.eventually(lambda: all(s.hung_up for s in house.upstream.calls("fox-flood")))
    assert house.ask(OPENAI, question(), customer.headers).status_code == 200
