"""kill -9 of the data plane, the money worker and Redis in the middle of a hundred streams.

The promise: every settle that Redis acknowledged is posted exactly once, every other dispatched
attempt has exactly one `unknown` event, and the registers equal Postgres afterwards.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import httpx
import pytest

from tests.e2e.house import House
from tests.e2e.stack import Stack, sse_events
from tests.fakes.upstream import STREAM_HEAD, Exchange, FakeUpstream, short_trickle
from tests.patience import PATIENCE_S

STREAMS = 100  # half of them are over when the test kills
TOKENS_MAX = 2_000
SETTLED_WITHIN_S = 300.0  # leases run out, and much is booked
PICO = Decimal(10) ** 12


@dataclass
class Client:
    """What one of them was told so far: its request's id, and the cost if the answer came to its
    end."""

    number: int
    request_id: str = ""
    cost_pico: int | None = None

    @property
    def is_quick(self) -> bool:
        return self.number % 2 == 0

    async def ask(self, http: httpx.AsyncClient, stack: Stack) -> None:
        body = {
            "model": "quick" if self.is_quick else "slow",
            "stream": True,
            "max_tokens": TOKENS_MAX,
            "messages": [{"role": "user", "content": f"number {self.number}"}],
        }
        key = stack.api_keys[self.number % len(stack.api_keys)]
        headers = {"authorization": f"Bearer {key}"}
        url, read = f"{stack.api}/v1/chat/completions", b""
        with contextlib.suppress(httpx.TransportError):
            async with http.stream("POST", url, json=body, headers=headers) as answer:
                assert answer.status_code == 200, await answer.aread()
                self.request_id = answer.headers["x-request-id"]
                async for piece in answer.aiter_bytes():
                    read += piece
            usage = sse_events(httpx.Response(200, content=read))[-1]["usage"]
            self.cost_pico = int(usage["cost"] * PICO)


async def _lists_models(call: Exchange) -> None:
    await call.answer(200, {"data": [{"id": "quick"}, {"id": "slow"}]})


async def _slow(call: Exchange) -> None:
    """A token every 200 ms, and never an end."""
    await call.raw(STREAM_HEAD)
    while True:
        await call.token("word ")
        await asyncio.sleep(0.2)


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    fake = FakeUpstream({"": _lists_models, "slow": _slow, "quick": short_trickle})
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def bare_stack(upstream: FakeUpstream) -> Iterator[Stack]:
    """An installation without in-house workers that sells the fake upstream's models."""
    running = Stack(TOKENHOUSE_WORKERS="0")
    try:
        House(running, upstream).open(model="quick", max_tokens=TOKENS_MAX)
        yield running
    finally:
        running.close()


async def _all_streams(stack: Stack) -> list[Client]:
    limits = httpx.Limits(max_connections=STREAMS)
    clients = [Client(number) for number in range(STREAMS)]
    async with httpx.AsyncClient(limits=limits, timeout=PATIENCE_S, trust_env=False) as http:
        running = [asyncio.create_task(each.ask(http, stack)) for each in clients]
        await asyncio.to_thread(stack.eventually, partial(_half_is_over, stack, clients))
        await asyncio.to_thread(stack.eventually, partial(_is_written, stack))
        for name in ("dataplane", "celery-money", "redis"):
            stack.kill(name)
        await asyncio.gather(*running)
    return clients


def _half_is_over(stack: Stack, clients: list[Client]) -> bool:
    """The quick ones have ended and are settled, and all others are under way."""
    ended = [each for each in clients if each.cost_pico is not None]
    if len(ended) < STREAMS // 2 or not all(each.request_id for each in clients):
        return False
    with stack.redis() as redis:
        leases = sum(redis.zcard(key) for key in redis.scan_iter(match="leases:*", count=1000))
    return leases == STREAMS // 2


def _is_written(stack: Stack) -> bool:
    """All that Redis was told until now. On a busy disk it keeps up to two seconds of it to itself,
    and a killed one loses them."""
    with stack.redis() as redis:
        return redis.info("persistence")["aof_buffer_length"] == 0


def test_a_crash_loses_no_acknowledged_settle_and_leaves_no_attempt_unaccounted(
    bare_stack: Stack, upstream: FakeUpstream
) -> None:
    # given a hundred streams, half of them over, when three processes are killed
    warm_up = len(upstream.calls("quick"))
    clients = asyncio.run(_all_streams(bare_stack))
    dispatched = len(upstream.calls("slow")) + len(upstream.calls("quick")) - warm_up
    ended = {each.request_id: each.cost_pico for each in clients if each.is_quick}
    broken = [each.request_id for each in clients if not each.is_quick]
    assert {each.cost_pico for each in clients if not each.is_quick} == {None}

    # when the supervisor has restarted them and the leases of the dead have run out
    key = bare_stack.api_keys[0]
    bare_stack.eventually(lambda: bare_stack.serves(key=key, model="quick", max_tokens=TOKENS_MAX))
    ids = [*ended, *broken]

    def all_events() -> list[tuple[str, int, str, int]]:
        found = _events(bare_stack, ids)
        return found if {request_id for request_id, *_ in found} == set(ids) else []

    # then every answer that ended was posted exactly once, at the cost that its client was told
    events = bare_stack.eventually(all_events, timeout_s=SETTLED_WITHIN_S)
    by_request = {request_id: (outcome, cost) for request_id, _, outcome, cost in events}
    assert len(events) == len(by_request) == len(ids)
    assert {i: by_request[i] for i in ended} == {i: ("ok", c) for i, c in ended.items()}

    # and every one that was cut has exactly one `unknown` event
    assert {by_request[i][0] for i in broken} == {"unknown"}
    assert len(ids) == dispatched

    # and all invariants hold, the registers' equality with Postgres among them
    checks = bare_stack.eventually(lambda: _checks_after(bare_stack), timeout_s=SETTLED_WITHIN_S)
    assert [name for name, holds in checks if not holds] == []


def _events(stack: Stack, ids: list[str]) -> list[tuple[str, int, str, int]]:
    return stack.sql(
        "SELECT request_id::text, attempt, outcome, tenant_cost_pico FROM billing_usageevent "
        "WHERE request_id = ANY(%s::uuid[])",
        ids,
    )


def _checks_after(stack: Stack) -> list[tuple[str, bool]]:
    """All invariants, once the registers were compared after the last event was drained."""
    checks = stack.sql(
        "SELECT name, holds, checked_at > (SELECT max(drained_at) FROM billing_usageevent) "
        "FROM billing_invariantcheck"
    )
    is_fresh = any(fresh for name, _, fresh in checks if name.startswith("Redis registers"))
    return [(name, holds) for name, holds, _ in checks] if is_fresh else []
