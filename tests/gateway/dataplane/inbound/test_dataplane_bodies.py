"""Bodies that never come to their end: the caller is told so, and it is not taken for our fault."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.clocks.pulse import Pulse
from gateway.clocks.stopwatch import SystemClock
from gateway.dataplane.inbound.client import Client
from gateway.dataplane.inbound.memory_budget import Budget
from gateway.dataplane.inbound.watchdog import Watchdog
from gateway.dataplane.limits import Limits
from gateway.errors import InvalidRequest, RequestTimeout, Unavailable

FIRST = {"type": "http.request", "body": b'{"model"', "more_body": True}
LIMITS = Limits(body_timeout_s=0.05)
Receive = Callable[[], Awaitable[dict[str, Any]]]


def client_that(receive: Receive, *, deadline_s: float = 5.0) -> Client:
    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(message)

    return Client(
        {"headers": [(b"transfer-encoding", b"chunked")], "client": None},
        receive,
        send,
        limits=LIMITS,
        watchdog=Watchdog(deadline_s=deadline_s, pulse=Pulse(SystemClock())),
        budget=Budget(1_000_000),
    )


def then(*messages: dict[str, Any]) -> Receive:
    """These messages, then silence."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


async def test_a_body_that_breaks_off_is_the_request_s_own_fault() -> None:
    client = client_that(then(FIRST, {"type": "http.disconnect"}))

    with pytest.raises(InvalidRequest) as refused:
        await client.body()
    assert refused.value.code == "broken_body"


async def test_a_body_that_does_not_come_is_a_request_timeout() -> None:
    with pytest.raises(RequestTimeout):
        await client_that(then(FIRST)).body()


async def test_a_body_on_its_way_when_the_process_stops_may_be_sent_again() -> None:
    # given
    client = client_that(then(FIRST))
    asyncio.get_running_loop().call_later(0.01, client.watchdog.end_now)

    # when / then
    with pytest.raises(Unavailable) as refused:
        await client.body()
    assert refused.value.retry_after_s == 1
