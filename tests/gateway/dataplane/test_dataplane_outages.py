"""Redis or Postgres away, replies lost, processes killed: nothing is granted, nothing is lost."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import httpx
import pytest

from billing import registers
from billing.models import ShardEpoch
from gateway.dataplane.snapshots.snapshot import FIND_KEY_TIMEOUT_S
from tests.fakes import upstream as fake
from tests.fakes.upstream import INPUT_TOKENS, TOKENS, Exchange, FakeUpstream
from tests.gateway.world import (
    EPOCH,
    Caller,
    World,
    add_offer,
    add_provider,
    cost_pico,
    eventually,
    nano,
    question,
    stream_events,
    warm,
)
from tests.patience import PATIENCE_S, ran_s

GOOD_NANO = nano(cost_pico(INPUT_TOKENS, 4, len(TOKENS)))
TOKENS_A_SECOND = 20  # of the trickle
READ = 80
LIMITS = {"TOKENHOUSE_DRAIN_MS": "5000", "TOKENHOUSE_DATABASE_ANSWER_S": "5"}


async def eighty(call: Exchange) -> None:
    """So many, and no word more."""
    await call.raw(fake.STREAM_HEAD)
    for number in range(READ):
        await call.token(TOKENS[number % len(TOKENS)])
        await asyncio.sleep(1 / TOKENS_A_SECOND)
    await fake.until_hung_up(call)


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours |= {
        "gated": upstream.gated,
        "opening": upstream.after_first_token,
        "slow": fake.short_trickle,
        "trickle": upstream.trickles_until_released,
        "eighty": eighty,
    }
    pool = add_provider("pool", upstream.url)
    for model in ("good", "gated", "opening", "slow", "trickle", "eighty"):
        add_offer(provider=pool, model=model, upstream_model=model)


@pytest.fixture
def world(the_world: World) -> Iterator[World]:
    """Everything mended, warm and running again before each test."""
    the_world.upstream.gate.clear()
    the_world.upstream.seen.clear()
    for cable in the_world.cables.values():
        cable.mend()
    warm(the_world.redis)
    if the_world.plane.process is None:
        the_world.plane.start()
    eventually(
        lambda: httpx.get(f"{the_world.plane.url}/ready", timeout=PATIENCE_S).status_code == 200
    )
    yield the_world
    the_world.upstream.gate.set()


class Asked:
    """A call that runs while the test goes on; in flight once the provider has seen it."""

    def __init__(self, world: World, caller: Caller, model: str, *, stream: bool = False) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(world.chat, caller, model, stream=stream)
        eventually(lambda: len(world.upstream.calls(model)) == 1)

    def answer(self) -> httpx.Response:
        answer = self._future.result()
        self._pool.shutdown()
        return answer


def test_redis_away_at_admission_is_503_and_comes_back(world: World) -> None:
    # given
    alice = world.caller()
    world.cables["redis"].cut()
    # when
    answer = world.chat(alice, "good")
    # then
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert httpx.get(f"{world.plane.url}/ready", timeout=PATIENCE_S).status_code == 503
    assert httpx.get(f"{world.plane.url}/health", timeout=PATIENCE_S).status_code == 200
    assert world.upstream.seen == []
    # and
    world.cables["redis"].mend()
    eventually(lambda: world.chat(alice, "good").status_code == 200)


def test_redis_away_at_settle_costs_the_client_nothing_and_the_books_neither(
    world: World,
) -> None:
    # given
    alice = world.caller()
    asked = Asked(world, alice, "gated")
    # when
    world.cables["redis"].cut()
    world.upstream.gate.set()
    answer = asked.answer()
    # then: the client has its answer, the settle waits on disk
    assert answer.status_code == 200
    assert answer.json()["usage"]["cost"] == 0.000054
    assert world.events(alice) == []
    assert any(path.stat().st_size for path in world.plane.spool.glob("*.jsonl"))
    # and: with Redis back it is booked once
    world.cables["redis"].mend()
    (event,) = world.settled(alice)
    assert event["charged_nano"] == GOOD_NANO
    eventually(lambda: not any(p.stat().st_size for p in world.plane.spool.glob("*.jsonl")))
    assert world.register(alice) == {"credit": 10**9, "spent": GOOD_NANO, "held": 0}


def test_a_settle_whose_reply_was_lost_is_booked_once(world: World) -> None:
    # given
    alice = world.caller()
    asked = Asked(world, alice, "gated")
    # when: Redis carries it out, and nobody hears of it
    world.cables["redis"].muted = True
    world.upstream.gate.set()
    eventually(lambda: len(world.events(alice)) == 1)
    world.cables["redis"].cut()
    world.cables["redis"].mend()
    # then
    assert asked.answer().status_code == 200
    assert len(world.settled(alice)) == 1
    assert world.register(alice) == {"credit": 10**9, "spent": GOOD_NANO, "held": 0}


def test_a_hold_whose_reply_was_lost_is_released(world: World) -> None:
    # given
    alice = world.caller()
    world.chat(alice, "good")
    spent = world.register(alice)["spent"]
    # when
    world.cables["redis"].muted = True
    answer = world.chat(alice, "good")
    world.cables["redis"].cut()
    world.cables["redis"].mend()
    # then
    assert answer.status_code == 503
    eventually(lambda: world.register(alice)["held"] == 0)
    assert world.register(alice)["spent"] == spent


def test_the_spool_of_a_killed_process_is_replayed_by_the_next(world: World) -> None:
    # given
    alice = world.caller()
    asked = Asked(world, alice, "gated")
    world.cables["redis"].cut()
    world.upstream.gate.set()
    asked.answer()
    # when
    world.plane.kill()
    world.cables["redis"].mend()
    world.plane.start()
    # then
    (event,) = world.settled(alice)
    assert event["outcome"] == "ok"
    assert world.register(alice) == {"credit": 10**9, "spent": GOOD_NANO, "held": 0}
    eventually(lambda: not any(p.stat().st_size for p in world.plane.spool.glob("*.jsonl")))


def test_an_emptied_redis_grants_nothing_until_it_is_rebuilt(world: World) -> None:
    # given
    alice = world.caller()
    tag = registers.shard_tag(alice.tenant.pk)
    world.redis.delete(registers.epoch_key(tag))
    # when
    answer = world.chat(alice, "good")
    # then
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "registers_cold"
    assert "retry-after" in answer.headers
    # and
    world.redis.set(registers.epoch_key(tag), EPOCH)
    assert world.chat(alice, "good").status_code == 200


def test_postgres_away_stops_nobody_who_is_known(world: World) -> None:
    # given: the snapshot knows alice
    alice = world.caller()
    world.reload_snapshot()
    world.cables["postgres"].cut()
    # when / then
    assert world.chat(alice, "good").status_code == 200


def test_postgres_away_is_never_a_wrong_key(world: World) -> None:
    # given
    world.cables["postgres"].cut()
    # when
    answer = httpx.post(
        f"{world.plane.url}/v1/chat/completions",
        headers={"authorization": "Bearer tk-000000000000-unknown"},
        json={},
        timeout=PATIENCE_S,
    )
    # then
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


def test_postgres_that_hangs_is_503_within_the_time_of_a_lookup(world: World) -> None:
    # given: it hears everything, and nobody hears it
    alice = world.caller()
    world.cables["postgres"].muted = True
    began = ran_s()
    # when
    answer = world.chat(alice, "good")
    # then
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert ran_s() - began < 2 * FIND_KEY_TIMEOUT_S
    # and
    world.cables["postgres"].cut()
    world.cables["postgres"].mend()
    eventually(lambda: world.chat(alice, "good").status_code == 200)


def test_a_long_outage_of_postgres_is_over_soon_after_it_is_back(world: World) -> None:
    # given: it is away for so long that waiting ever longer between tries would show
    alice = world.caller()
    strangers = [replace(alice, plain=f"tk-away-{number}") for number in range(10)]
    world.cables["postgres"].cut()
    # and all the while somebody asks for it
    asked = [world.chat(stranger, "good").status_code for stranger in strangers[1:]]
    assert set(asked) == {503}
    # when
    world.cables["postgres"].mend()
    # then
    eventually(lambda: world.chat(strangers[0], "good").status_code == 401, timeout_s=6)


def test_lookups_that_nobody_answers_give_their_threads_back(world: World) -> None:
    # given: both threads that look keys up have a connection
    alice = world.caller()
    strangers = [replace(alice, plain=f"tk-nobody-{number}") for number in range(16)]
    with ThreadPoolExecutor(12) as pool:
        early = list(pool.map(lambda stranger: world.chat(stranger, "good"), strangers[4:]))
    assert {answer.status_code for answer in early} == {401}
    # and ask a server that hears and says nothing
    world.cables["postgres"].muted = True
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda stranger: world.chat(stranger, "good"), strangers[:4]))
    assert {answer.status_code for answer in asked} == {503}
    # when: it speaks again, but what was asked before is lost, and no connection was ended
    world.cables["postgres"].muted = False
    # then: no snapshot knows these, so that only a lookup can say what they are
    eventually(lambda: world.chat(strangers[0], "good").status_code == 401)


def test_a_stop_signal_lets_open_streams_end_and_books_them(world: World) -> None:
    # given
    alice = world.caller()
    asked = Asked(world, alice, "slow", stream=True)
    # when
    code = world.plane.stop()
    # then
    assert stream_events(asked.answer().text)[-1] == "[DONE]"
    (event,) = world.events(alice)
    assert event["outcome"] == "ok"
    assert world.register(alice)["held"] == 0
    assert code == 0


def test_a_stop_signal_ends_streams_that_take_too_long_and_books_them(world: World) -> None:
    # given: a stream without end
    alice = world.caller()
    asked = Asked(world, alice, "trickle", stream=True)
    # when
    world.plane.stop()
    # then
    assert asked.answer().text.endswith("data: [DONE]\n\n")
    assert '"finish_reason":"error"' in asked.answer().text
    (event,) = world.events(alice)
    assert event["outcome"] == "deadline"
    assert 0 < event["charged_nano"]
    assert world.register(alice)["held"] == 0


def test_a_lease_is_renewed_with_what_was_delivered(world: World) -> None:
    # given
    alice = world.caller()
    tag = registers.shard_tag(alice.tenant.pk)
    asked = Asked(world, alice, "trickle", stream=True)

    # when
    def charge() -> int:
        (lease,) = world.redis.zrange(registers.leases_key(tag), 0, -1)
        return int(world.redis.hget(registers.hold_key(tag, lease.decode()), "charge") or 0)

    eventually(lambda: charge() > 0)
    # then: more than nothing, less than the whole
    assert charge() < world.register(alice)["held"]
    world.upstream.gate.set()
    assert asked.answer().status_code == 200


def test_a_lease_outlives_a_rebuild_of_its_shard(world: World) -> None:
    # given: a stream whose shard got a new epoch that the process has not seen
    alice = world.caller()
    tag = registers.shard_tag(alice.tenant.pk)
    asked = Asked(world, alice, "trickle", stream=True)
    shard = registers.shard_of(alice.tenant.pk)
    ShardEpoch.objects.filter(shard=shard).update(epoch="rebuilt")
    world.redis.set(registers.epoch_key(tag), "rebuilt")

    # when
    def charge() -> int:
        (lease,) = world.redis.zrange(registers.leases_key(tag), 0, -1)
        return int(world.redis.hget(registers.hold_key(tag, lease.decode()), "charge") or 0)

    # then: it is renewed at the next turn all the same
    eventually(lambda: charge() > 0)
    world.upstream.gate.set()
    assert asked.answer().status_code == 200
    (event,) = world.settled(alice)
    assert event["outcome"] == "ok"


def test_a_killed_process_leaves_a_hold_that_expires(world: World) -> None:
    # given
    alice = world.caller()
    tag = registers.shard_tag(alice.tenant.pk)
    Asked(world, alice, "gated")
    # when
    world.plane.kill()
    # then: the hold stays, under a lease that ends by itself
    (lease,) = world.redis.zrange(registers.leases_key(tag), 0, -1, withscores=True)
    assert world.register(alice)["held"] > 0
    assert lease[1] > 0


def test_a_killed_process_loses_at_most_a_second_of_what_it_delivered(world: World) -> None:
    # given: a token each 50 ms, of which eighty were read
    alice = world.caller()
    tag = registers.shard_tag(alice.tenant.pk)
    body = question("eighty", stream=True, max_tokens=200)
    with httpx.stream(
        "POST",
        f"{world.plane.url}/v1/chat/completions",
        headers=alice.headers,
        json=body,
        timeout=PATIENCE_S,
    ) as answer:
        lines = (line for line in answer.iter_lines() if '"content": "' in line)
        delivered = len(list(islice(lines, READ)))
        # when
        world.plane.kill()
    # then: an estimate, and no bound
    (lease,) = world.redis.zrange(registers.leases_key(tag), 0, -1)
    event = json.loads(world.redis.hget(registers.hold_key(tag, lease.decode()), "event") or b"")
    booked = event["usage"]["output_tokens"]
    assert delivered - 1.5 * TOKENS_A_SECOND <= booked <= delivered + TOKENS_A_SECOND
    assert event["usage_source"] in ("bytes", "measured_ratio")
    assert event["usage"]["input_tokens"] < 40
