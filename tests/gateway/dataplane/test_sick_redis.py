"""A Redis that refuses because of its own state loses no money and asks nobody to pay twice."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from billing import registers
from billing.holding.settle_records import REFUSED_STREAM
from billing.models import Tenant
from tests.fakes import sick_redis
from tests.fakes.upstream import INPUT_TOKENS, TOKENS, FakeUpstream
from tests.gateway.dataplane.test_dataplane_outages import Asked
from tests.gateway.world import (
    World,
    add_offer,
    add_provider,
    cost_pico,
    eventually,
    nano,
    warm,
)
from tests.patience import PATIENCE_S, ran_s

GOOD_NANO = nano(cost_pico(INPUT_TOKENS, 4, len(TOKENS)))
WELL_WITHIN_S = 10.0
STATES = ("MISCONF", *sick_redis.STATES)


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours |= {"gated": upstream.gated}
    pool = add_provider("pool", upstream.url)
    for model in ("good", "gated"):
        add_offer(provider=pool, model=model, upstream_model=model)


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    the_world.upstream.gate.clear()
    the_world.upstream.seen.clear()
    warm(the_world.redis)
    eventually(lambda: readiness(the_world)["ready"])
    yield the_world
    the_world.upstream.gate.set()


def readiness(world: World) -> dict[str, Any]:
    said: dict[str, Any] = httpx.get(f"{world.plane.url}/ready", timeout=PATIENCE_S).json()
    return said


@contextmanager
def sick(client: redis.Redis, state: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="tokenhouse-sick-") as folder:
        Path(folder).chmod(0o755)
        ill: AbstractContextManager[None] = (
            sick_redis.disk_full(client, Path(folder))
            if state == "MISCONF"
            else sick_redis.STATES[state](client)
        )
        with ill:
            yield


@pytest.mark.parametrize("state", STATES)
def test_what_was_served_meanwhile_is_booked_as_it_was_told(world: World, state: str) -> None:
    # given: a request that was admitted before
    alice = world.caller()
    asked = Asked(world, alice, "gated")
    # when
    with sick(world.redis, state):
        world.upstream.gate.set()
        answer = asked.answer()
        # then
        assert answer.status_code == 200
        assert answer.json()["usage"]["cost"] == 0.000054
        eventually(lambda: f"({state})" in readiness(world)["reason"])
        assert readiness(world)["unsettled"] == 1
    well_at = ran_s()
    # and: well again, it is booked once, at what was told
    (event,) = world.settled(alice)
    assert event["charged_nano"] == GOOD_NANO
    assert event["request_id"] == answer.headers["x-request-id"]
    assert world.register(alice) == {"credit": 10**9, "spent": GOOD_NANO, "held": 0}
    assert world.redis.xlen(REFUSED_STREAM) == 0
    eventually(lambda: readiness(world)["ready"], timeout_s=WELL_WITHIN_S)
    assert readiness(world)["unsettled"] == 0
    assert world.chat(alice, "good").status_code == 200
    assert ran_s() - well_at < WELL_WITHIN_S


@pytest.mark.parametrize("state", STATES)
def test_nobody_is_admitted_and_nobody_is_blamed(world: World, state: str) -> None:
    # given
    alice = world.caller()
    assert world.chat(alice, "good").status_code == 200
    before, calls = world.register(alice), len(world.upstream.seen)
    # when
    with sick(world.redis, state):
        answer = world.chat(alice, "good")
        quote = httpx.post(
            f"{world.plane.url}/v1/quote",
            headers=alice.headers,
            json={"model": "good", "messages": [{"role": "user", "content": "?"}]},
            timeout=PATIENCE_S,
        )
        own = httpx.get(f"{world.plane.url}/v1/key", headers=alice.headers, timeout=PATIENCE_S)
    # then
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "registers_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    # Who only reads is answered by a Redis that can be read.
    assert {quote.status_code, own.status_code} <= {200, 503}
    assert len(world.upstream.seen) == calls
    assert world.register(alice) == before
    # and
    eventually(lambda: world.chat(alice, "good").status_code == 200, timeout_s=WELL_WITHIN_S)


def test_a_settle_refused_for_good_is_handed_to_people(world: World) -> None:
    # given: a register that is no number any more
    alice = world.caller()
    asked = Asked(world, alice, "gated")
    world.redis.hset(_tenant_key(alice.tenant.pk), "spent", "nonsense")
    # when
    world.upstream.gate.set()
    answer = asked.answer()
    # then: the caller has its answer, and the settle stands where people look
    assert answer.status_code == 200
    ((_, fields),) = world.redis.xrange(REFUSED_STREAM)
    record = json.loads(fields[b"r"])
    assert record["request_id"] == answer.headers["x-request-id"]
    assert b"not a whole number below 2^52: spent" in fields[b"why"]
    assert world.events(alice) == []
    said = readiness(world)
    assert (said["open"], said["unsettled"], said["ready"]) == (0, 0, True)
    world.redis.delete(REFUSED_STREAM)


def _tenant_key(tenant: int) -> str:
    return registers.tenant_key(registers.shard_tag(tenant), tenant)


def test_a_credit_that_redis_has_not_heard_of_refuses_nobody_for_good(world: World) -> None:
    # given: nothing left, and a grant that Redis did not take
    alice = world.caller(credit_nano=1)
    assert world.chat(alice, "good").status_code == 402
    key = _tenant_key(alice.tenant.pk)
    with sick(world.redis, "OOM"):
        Tenant.objects.filter(pk=alice.tenant.pk).update(credit_version=2)
    # when
    eventually(lambda: world.chat(alice, "good").status_code == 503)
    answer = world.chat(alice, "good")
    # then
    assert answer.json()["error"]["code"] == "credit_untold"
    assert int(answer.headers["retry-after"]) >= 1
    # and once it is told
    world.redis.hset(key, mapping={"credit": 10**9, "version": 2})
    assert world.chat(alice, "good").status_code == 200


def test_a_suspension_that_is_over_is_no_403_while_redis_has_not_heard(world: World) -> None:
    # given
    alice = world.caller()
    world.redis.hset(_tenant_key(alice.tenant.pk), "status", "suspended")
    assert world.chat(alice, "good").status_code == 403
    Tenant.objects.filter(pk=alice.tenant.pk).update(credit_version=2)
    # when / then
    eventually(lambda: world.chat(alice, "good").status_code == 503)
