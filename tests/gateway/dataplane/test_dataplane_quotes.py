"""What a request would cost at each offer, before it is sent."""

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing.models import CallProfile, RateLimit
from tests.fakes.upstream import FakeUpstream
from tests.gateway.world import (
    Caller,
    World,
    add_offer,
    add_provider,
    eventually,
    question,
)
from tests.patience import PATIENCE_S

NANO = Decimal(10) ** 9


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours["gated"] = upstream.gated
    pool, dear = add_provider("pool", upstream.url), add_provider("dear", upstream.url)
    for seller, dearer in ((pool, 1), (dear, 2)):
        add_offer(provider=seller, model="fox", upstream_model="gated", dearer=dearer)


def quote(world: World, caller: Caller, **more: Any) -> httpx.Response:
    headers = {**caller.headers, **more.pop("headers", {})}
    body = question("fox", **more)
    return httpx.post(f"{world.plane.url}/v1/quote", json=body, headers=headers, timeout=PATIENCE_S)


def exact(answer: httpx.Response) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.content, parse_float=Decimal, parse_int=Decimal)
    return document


def held_nano(world: World, caller: Caller, **more: Any) -> int:
    """What a call of the same body really holds."""
    world.upstream.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.chat, caller, "fox", **more)
        eventually(lambda: bool(world.register(caller)["held"]))
        held = world.register(caller)["held"]
        world.upstream.gate.set()
        assert asked.result().status_code == 200
    return held


ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"n": 3},
    {"max_tokens": 1},
    {"provider": {"only": ["pool"]}},
    {"max_cost": "0.0005"},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
)


@pytest.mark.parametrize("asked", ASKED)
def test_the_maximum_is_what_a_hold_is(the_world: World, asked: dict[str, Any]) -> None:
    # given
    alice = the_world.caller()
    # when
    document = exact(quote(the_world, alice, **asked))
    # then
    held = held_nano(the_world, alice, **asked)
    assert document["hold_usd"] * NANO == document["max_usd"] * NANO == held
    planned = [offer for offer in document["offers"] if offer["planned"]]
    assert max(offer["max_usd"] for offer in planned) * NANO == held


def test_an_expected_hold_is_quoted_beside_the_maximum(the_world: World) -> None:
    # given
    alice = the_world.caller(hold_mode="expected", overdraft_pico=10**12)
    CallProfile.objects.create(
        tenant=alice.tenant, model="fox", calls=700, output_mean=3, output_p95=4, output_p99=5,
        input_mean=100, input_p95=200, input_p99=250, refreshed_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    # when
    document = exact(quote(the_world, alice))
    # then
    assert document["hold_mode"] == "expected"
    assert document["hold_usd"] * NANO == held_nano(the_world, alice)
    assert document["hold_usd"] < document["max_usd"]
    for offer in document["offers"]:
        assert (offer["basis"], offer["samples"]) == ("tenant", 700)
        assert 0 < offer["expected_usd"] <= offer["p95_usd"] <= offer["hold_usd"]


def test_without_a_past_the_quote_says_so(the_world: World) -> None:
    document = exact(quote(the_world, the_world.caller()))
    for offer in document["offers"]:
        assert (offer["basis"], offer["samples"]) == ("bounds", 0)
        assert offer["expected_usd"] < offer["p95_usd"] == offer["max_usd"]


def test_a_quote_holds_nothing_and_calls_nobody(the_world: World) -> None:
    # given: not even credit is needed to ask
    alice = the_world.caller(credit_nano=0)
    calls = len(the_world.upstream.seen)
    # when
    answer = quote(the_world, alice)
    # then
    assert answer.status_code == 200, answer.text
    assert len(the_world.upstream.seen) == calls
    assert the_world.register(alice) == {"credit": 0, "spent": 0, "held": 0}
    assert the_world.events(alice) == []


def test_a_quote_counts_as_a_request(the_world: World) -> None:
    # given
    alice = the_world.caller()
    RateLimit.objects.create(tenant=alice.tenant, scope_kind="key", scope_id=alice.key.pk, rpm=1)
    # when
    first, second = quote(the_world, alice), quote(the_world, alice)
    # then
    assert (first.status_code, second.status_code) == (200, 429)
    assert int(second.headers["retry-after"]) >= 1


def test_who_may_not_call_gets_no_quote(the_world: World) -> None:
    alice = the_world.caller()
    stranger = {"authorization": f"Bearer tk-{'9' * 12}-{'z' * 43}"}
    assert quote(the_world, alice, headers=stranger).status_code == 401
    assert (
        httpx.get(
            f"{the_world.plane.url}/v1/quote", headers=alice.headers, timeout=PATIENCE_S
        ).status_code
        == 405
    )
    the_world.redis.hset(
        f"keys:{{s{alice.tenant.shard:02d}}}:{alice.tenant.pk}", str(alice.key.pk), "revoked"
    )
    assert quote(the_world, alice).status_code == 401


def test_a_quote_that_no_offer_fits_names_the_numbers(the_world: World) -> None:
    answer = quote(the_world, the_world.caller(), max_cost="0.0000001")
    assert answer.status_code == 402
    assert answer.json()["error"]["code"] == "over_max_cost"


def test_anthropic_s_body_is_quoted_and_refused_in_its_dialect(the_world: World) -> None:
    # given
    alice = the_world.caller()
    url, headers = f"{the_world.plane.url}/v1/quote", {"anthropic-version": "2023-06-01"}
    body = {"model": "fox", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    # when
    good = httpx.post(url, json=body, headers={**alice.headers, **headers}, timeout=PATIENCE_S)
    bad = httpx.post(
        url, json={"model": "fox"}, headers={**alice.headers, **headers}, timeout=PATIENCE_S
    )
    # then
    assert good.json()["offers"][0]["output_tokens_max"] == 9
    assert (bad.status_code, bad.json()["type"]) == (400, "error")
