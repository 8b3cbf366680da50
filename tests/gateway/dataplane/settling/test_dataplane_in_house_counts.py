"""An in-house worker's own count of what was shown is charged, however a call ends."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from billing import basis
from providers.market import credentials
from providers.models import Provider, Worker, WorkerKey
from tests.fakes import upstream as fake
from tests.fakes.upstream import STREAM_HEAD, TOKENS, Exchange, FakeUpstream
from tests.gateway.dataplane.inbound.test_dataplane_clients import leaving
from tests.gateway.world import World, add_offer, add_provider, cost_pico, eventually

LIMITS = {"TOKENHOUSE_DEADLINE_MS": "30000", "TOKENHOUSE_TOKEN_GAP_TIMEOUT_MS": "600"}
PROMPT_TOKENS, CACHED_TOKENS, TOKENS_A_CHUNK = 38, 16, 3


def usage_of(output_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": output_tokens,
        "total_tokens": PROMPT_TOKENS + output_tokens,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }


async def _counted(call: Exchange, chunks: int) -> None:
    """Speculation gives several tokens a chunk, and the count says how many."""
    await call.raw(STREAM_HEAD)
    for number in range(1, chunks + 1):
        delta = {"content": TOKENS[number % len(TOKENS)]}
        document = {
            "id": "up",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
            "usage": usage_of(TOKENS_A_CHUNK * number),
        }
        await call.event(document)


async def stops_after_four(call: Exchange) -> None:
    await _counted(call, 4)
    if not await call.reader.read(1):
        call.seen.hung_up = True


async def cut_after_four(call: Exchange) -> None:
    await _counted(call, 4)
    call.reset()


async def what_a_call_used(call: Exchange) -> None:
    """GET /v1/calls/<id>, which names no model."""
    await call.answer(200, {"over": True, "usage": usage_of(0)})


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours |= {
        "stops": stops_after_four,
        "cut": cut_after_four,
        "silent": fake.silent,
        "": what_a_call_used,
    }
    house = add_provider("house", "", kind=Provider.Kind.IN_HOUSE)
    key = WorkerKey.objects.create(label="k", public_id="k", secret_hash=b"")
    now = datetime.now(UTC)
    for model in ("stops", "cut", "silent"):
        Worker.objects.create(
            name=model,
            key=key,
            offer=add_offer(provider=house, model=model, upstream_model=model),
            base_url=upstream.url,
            bearer_ciphertext=credentials.encrypt("open sesame"),
            usd_per_hour_pico=10**11,
            usd_per_hour_source="assumed",
            registered_at=now,
            heartbeat_at=now,
        )


def assert_charged(event: dict[str, Any], *, output_tokens: int) -> None:
    assert event["usage_source"] == basis.ENGINE
    assert event["detail"]["basis"] == [basis.ENGINE, basis.ENGINE]
    assert event["usage"] == {
        "input_tokens": PROMPT_TOKENS,
        "cache_read_tokens": CACHED_TOKENS,
        "output_tokens": output_tokens,
    }
    assert event["tenant_cost_pico"] == cost_pico(PROMPT_TOKENS, CACHED_TOKENS, output_tokens)


def test_a_cancelled_stream_pays_the_engine_s_count_of_what_was_shown(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when: the client leaves behind the fourth chunk
    with leaving(the_world, alice, "stops") as read_until:
        seen = read_until(TOKENS[4].encode())
    # then
    (event,) = the_world.settled(alice)
    assert event["outcome"] == "client_cancelled"
    assert_charged(event, output_tokens=12)
    assert b"usage" not in seen  # told once, at the end
    asked = the_world.upstream.calls("stops")[-1]
    assert asked.body["stream_options"]["continuous_usage_stats"] is True
    assert asked.headers["x-request-id"] == f"{event['request_id']}-1"


def test_a_stream_that_the_worker_breaks_off_pays_the_same(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "cut", stream=True)
    # then
    (event,) = the_world.settled(alice)
    assert event["outcome"] == "upstream_cut"
    assert_charged(event, output_tokens=12)
    assert f'"cost":{event["tenant_cost_pico"] / 1e12:.12f}'.rstrip("0") in answer.text


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_before_the_answer_pays_the_prompt_as_the_worker_counted_it(
    the_world: World, stream: bool
) -> None:
    # given
    alice, before = the_world.caller(), len(the_world.upstream.calls("silent"))
    # when
    with leaving(the_world, alice, "silent", stream=stream):
        eventually(lambda: len(the_world.upstream.calls("silent")) == before + 1)
    # then: it is asked by the id that the call came with, with the worker's secret
    (event,) = the_world.settled(alice)
    assert event["usage_source"] == basis.ENGINE
    assert event["tenant_cost_pico"] == cost_pico(PROMPT_TOKENS, CACHED_TOKENS, 0)
    assert the_world.upstream.calls("")[-1].headers["authorization"] == "Bearer open sesame"


def test_a_worker_that_cannot_be_asked_leaves_an_estimate(the_world: World) -> None:
    # given
    alice, before = the_world.caller(), len(the_world.upstream.calls("silent"))
    the_world.upstream.behaviours[""] = fake.unavailable
    # when
    with leaving(the_world, alice, "silent"):
        eventually(lambda: len(the_world.upstream.calls("silent")) == before + 1)
    # then
    (event,) = the_world.settled(alice)
    the_world.upstream.behaviours[""] = what_a_call_used
    assert event["usage_source"] in (basis.BYTES, basis.MEASURED)
    assert 0 < event["usage"]["input_tokens"] < 2 * PROMPT_TOKENS
    assert json.dumps(event["detail"]["basis"]).count(basis.ENGINE) == 1  # of no output
