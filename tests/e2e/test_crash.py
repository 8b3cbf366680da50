"""kill -9 of the data plane, the money worker and Redis in the middle of a hundred streams.

The promise: every settle that Redis acknowledged is posted exactly once, every other dispatched
attempt has exactly one `unknown` event, and the registers equal Postgres afterwards.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import httpx
import pytest

from gateway.runtime.data_folders import CLONE
from tests.e2e.stack import Stack, sse_events
from tests.fakes.upstream import STREAM_HEAD, Exchange, FakeUpstream, short_trickle

STREAMS = 100
TOKENS_MAX = 200
PICO = Decimal(10) ** 12


@dataclass(frozen=True, slots=True)
class Told:
    """What one client was told: its request's id, and the cost if the answer came to its end."""

    request_id: str
    cost_pico: int | None


async def _lists_models(call: Exchange) -> None:
    await call.answer(200, {"data": [{"id": "quick"}, {"id": "slow"}]})


async def _slow(call: Exchange) -> None:
    """A token every 200 ms for half a minute: never at its end when the test kills."""
    await call.raw(STREAM_HEAD)
    for _ in range(150):
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
        running.start()
        _attach(running, upstream)
        yield running
    finally:
        running.close()


def _attach(stack: Stack, upstream: FakeUpstream) -> None:
    command = ["manage.py", "attach_pool", "fake", upstream.url]
    prices = ["--input-usd", "1", "--output-usd", "2"]
    subprocess.run(
        [sys.executable, *command, *prices], cwd=CLONE, env=stack.variables(), check=True
    )
    key = stack.api_keys[0]
    stack.eventually(
        lambda: stack.serves(key=key, model="quick", max_tokens=TOKENS_MAX), timeout_s=20
    )


async def _one(client: httpx.AsyncClient, stack: Stack, number: int) -> Told | None:
    """One client; None where it was never given a request id."""
    model = "slow" if number % 2 else "quick"
    body = {
        "model": model,
        "stream": True,
        "max_tokens": TOKENS_MAX,
        "messages": [{"role": "user", "content": f"number {number}"}],
    }
    key = stack.api_keys[number % len(stack.api_keys)]
    headers = {"authorization": f"Bearer {key}"}
    request_id, read = "", b""
    try:
        url = f"{stack.api}/v1/chat/completions"
        async with client.stream("POST", url, json=body, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            request_id = answer.headers["x-request-id"]
            async for piece in answer.aiter_bytes():
                read += piece
    except httpx.TransportError:
        return Told(request_id, None) if request_id else None
    events = sse_events(httpx.Response(200, content=read))
    usage = events[-1].get("usage") if events else None
    return Told(request_id, int(usage["cost"] * PICO) if usage else None)


async def _all_streams(stack: Stack) -> list[Told]:
    limits = httpx.Limits(max_connections=STREAMS)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        running = [asyncio.create_task(_one(client, stack, n)) for n in range(STREAMS)]
        # Long enough for the quick half to end and be settled.
        await asyncio.sleep(6)
        for name in ("dataplane", "celery-money", "redis"):
            stack.kill(name)
        return [told for told in await asyncio.gather(*running) if told is not None]


def test_a_crash_loses_no_acknowledged_settle_and_leaves_no_attempt_unaccounted(
    bare_stack: Stack, upstream: FakeUpstream
) -> None:
    # given a hundred streams, half of them over, when three processes are killed
    warm_up = len(upstream.calls("quick"))
    told = asyncio.run(_all_streams(bare_stack))
    dispatched = len(upstream.calls("slow")) + len(upstream.calls("quick")) - warm_up
    ended = {each.request_id: each.cost_pico for each in told if each.cost_pico is not None}
    broken = [each.request_id for each in told if each.cost_pico is None]
    assert len(ended) >= STREAMS // 4
    assert len(broken) >= STREAMS // 4

    # when the supervisor has restarted them and the leases of the dead have run out
    key = bare_stack.api_keys[0]
    bare_stack.eventually(
        lambda: bare_stack.serves(key=key, model="quick", max_tokens=TOKENS_MAX), timeout_s=60
    )
    ids = [*ended, *broken]
    bare_stack.eventually(lambda: len(_events(bare_stack, ids)) >= len(ids), timeout_s=90)

    # then every answer that ended was posted exactly once, at the cost that its client was told
    events = _events(bare_stack, ids)
    by_request = {request_id: (outcome, cost) for request_id, _, outcome, cost in events}
    assert len(events) == len(by_request) == len(ids)
    assert {i: by_request[i] for i in ended} == {i: ("ok", c) for i, c in ended.items()}

    # and every one that was cut has exactly one `unknown` event
    assert {by_request[i][0] for i in broken} == {"unknown"}
    assert len(ids) == dispatched

    # and all invariants hold, the registers' equality with Postgres among them
    checks = bare_stack.eventually(lambda: _checks_after(bare_stack), timeout_s=60)
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
