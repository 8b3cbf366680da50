"""A data plane is killed while its worker streams: what was delivered is what is booked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing import basis
from billing.books import usage_queries
from billing.corrections import true_ups
from billing.drain import metering
from billing.holding import expiry
from billing.models import Account, AdjustmentNote, Entry, UsageEvent
from providers.machines import lost_calls
from providers.market import credentials
from providers.models import Provider, Worker, WorkerKey
from tests.fakes import upstream as fake
from tests.fakes.upstream import STREAM_HEAD, TOKENS, Exchange, FakeUpstream
from tests.gateway.dataplane.inbound.test_dataplane_clients import leaving
from tests.gateway.world import Caller, World, add_offer, add_provider, cost_pico

PROMPT_TOKENS, CACHED_TOKENS, TOKENS_A_CHUNK, CHUNKS = 38, 16, 3, 4
DELIVERED = TOKENS_A_CHUNK * CHUNKS
delivered: dict[str, int] = {}  # by the call's id, as the worker counts


def usage_of(output_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": output_tokens,
        "total_tokens": PROMPT_TOKENS + output_tokens,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }


async def streams(call: Exchange) -> None:
    """Says no count with its chunks, as a worker under speculation need not."""
    await call.raw(STREAM_HEAD)
    for number in range(1, CHUNKS + 1):
        await call.token(TOKENS[number])
        delivered[call.seen.headers["x-request-id"]] = TOKENS_A_CHUNK * number
    if not await call.reader.read(1):
        call.seen.hung_up = True


async def what_a_call_used(call: Exchange) -> None:
    count = delivered.get(call.seen.path.rpartition("/calls/")[2])
    if count is None:
        await call.answer(404, {"error": {"message": "no such call"}})
        return
    await call.answer(200, {"over": True, "usage": usage_of(count)})


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours |= {"streams": streams, "": what_a_call_used}
    house = add_provider("house", "", kind=Provider.Kind.IN_HOUSE)
    now = datetime.now(UTC)
    Worker.objects.create(
        name="streams",
        key=WorkerKey.objects.create(label="k", public_id="k", secret_hash=b""),
        offer=add_offer(provider=house, model="streams", upstream_model="streams"),
        base_url=upstream.url,
        bearer_ciphertext=credentials.encrypt("open sesame"),
        usd_per_hour_pico=10**11,
        usd_per_hour_source="assumed",
        registered_at=now,
        heartbeat_at=now,
    )


def killed(world: World, caller: Caller) -> datetime:
    """kill -9 behind the last chunk; when its lease has surely run out."""
    with leaving(world, caller, "streams") as read_until:
        read_until(TOKENS[CHUNKS].encode())
        world.plane.kill()
    later = datetime.now(UTC) + timedelta(hours=1)
    assert expiry.expire_holds(world.redis, now_ms=int(later.timestamp() * 1000)) == 1
    metering.drain_all(world.redis, now=later)
    return later


@pytest.fixture
def alice(the_world: World) -> Caller:
    if the_world.plane.process is None:
        the_world.plane.start()
    return the_world.caller()


def booked_pico(caller: Caller) -> int:
    events = UsageEvent.objects.filter(tenant=caller.tenant)
    assert not events.exclude(state=UsageEvent.State.POSTED)
    booked = sum(event.tenant_cost_pico for event in events)
    entries = Entry.objects.filter(
        account__tenant=caller.tenant, account__kind=Account.Kind.TENANT_CREDIT
    )
    assert sum(int(entry.amount_pico) for entry in entries) == booked
    return booked


def test_the_worker_is_asked_and_what_it_delivered_is_booked_once(
    the_world: World, alice: Caller
) -> None:
    # given
    now = killed(the_world, alice)
    expired = UsageEvent.objects.get(tenant=alice.tenant)
    before = booked_pico(alice)
    # when
    settled = lost_calls.true_up(the_world.redis, now=now)
    metering.drain_all(the_world.redis, now=now)
    again = lost_calls.true_up(the_world.redis, now=now)
    # then
    true_pico = cost_pico(PROMPT_TOKENS, CACHED_TOKENS, DELIVERED)
    assert (expired.attempt, expired.outcome) == (-2, "unknown")
    assert before != true_pico
    assert (settled, again) == (1, 0)
    late = UsageEvent.objects.get(tenant=alice.tenant, attempt=1)
    assert late.usage_source == basis.ENGINE
    assert (late.input_tokens, late.cache_read_tokens, late.output_tokens) == (
        PROMPT_TOKENS,
        CACHED_TOKENS,
        DELIVERED,
    )
    assert booked_pico(alice) == true_pico
    assert the_world.register(alice)["held"] == 0
    assert the_world.register(alice)["spent"] == -(-true_pico // 1000)
    asked = the_world.upstream.calls("")[-1]
    assert asked.path.endswith(f"/v1/calls/{late.request_id}-1")
    assert asked.headers["authorization"] == "Bearer open sesame"


def test_a_worker_that_does_not_know_the_call_moves_nothing(
    the_world: World, alice: Caller
) -> None:
    # given
    now = killed(the_world, alice)
    delivered.clear()
    before = (booked_pico(alice), the_world.register(alice))
    # when
    settled = lost_calls.true_up(the_world.redis, now=now)
    metering.drain_all(the_world.redis, now=now)
    # then
    assert settled == 0
    assert (booked_pico(alice), the_world.register(alice)) == before


def test_an_estimate_is_trued_up_when_its_worker_can_be_asked_again(
    the_world: World, alice: Caller
) -> None:
    # given: a caller left, and the worker did not say what it had counted
    the_world.upstream.behaviours[""] = fake.unavailable
    with leaving(the_world, alice, "streams") as read_until:
        read_until(TOKENS[CHUNKS].encode())
    the_world.settled(alice)
    now = datetime.now(UTC)
    metering.drain_all(the_world.redis, now=now)
    away = lost_calls.count_estimates(now=now)
    event = UsageEvent.objects.get(tenant=alice.tenant)
    # when: it is back, and had cut its answer at a token and a prompt of four
    used = {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}

    async def still_going(call: Exchange) -> None:
        await call.answer(200, {"over": False, "usage": used})

    async def over(call: Exchange) -> None:
        await call.answer(200, {"over": True, "usage": used})

    the_world.upstream.behaviours[""] = still_going
    going = lost_calls.count_estimates(now=now)
    the_world.upstream.behaviours[""] = over
    noted = [lost_calls.count_estimates(now=now) for _ in range(2)]
    posted = [true_ups.post_due(now=now) for _ in range(2)]
    the_world.upstream.behaviours[""] = what_a_call_used
    # then
    assert basis.is_estimate(event.usage_source)
    assert (away, going, noted, posted) == (0, 0, [1, 0], [1, 0])
    record = usage_queries.one_request(alice.tenant.pk, event.request_id)
    assert record is not None
    found = record.true_ups[event.attempt]
    assert found.due_pico == cost_pico(4, 0, 1)
    assert found.note == AdjustmentNote.objects.get(tenant=alice.tenant)
    assert found.note.grant.amount_pico == event.tenant_cost_pico - cost_pico(4, 0, 1)
