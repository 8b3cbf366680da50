"""A tenant with a margin of 20 % asks the API for all there is: no supplier's figure is in it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.utils import timezone

from billing.models import PriceList
from billing.money import usd_json
from billing.prices import lists as price_lists
from tests.fakes import upstream as fake
from tests.fakes.upstream import FakeUpstream
from tests.gateway.dataplane.test_supplier_figures import rates_as_text, sums_as_text
from tests.gateway.world import (
    CACHED_PICO,
    INPUT_PICO,
    OUTPUT_PICO,
    Caller,
    World,
    add_offer,
    add_provider,
    question,
)
from tests.patience import PATIENCE_S

PLANTED = "0.0871300087"
SUMS: dict[str, Any] = {
    "cost": PLANTED,
    "cost_details": {"upstream_inference_cost": PLANTED},
    "cost_in_usd_ticks": PLANTED,
}
MARGIN_PPM, COST_PPM = 200_000, -130_000


async def tells_sums(call: fake.Exchange) -> None:
    """As resellers do: what they charge us, in usage, beside it, and in a header."""
    if not call.seen.body.get("stream"):
        usage = {**fake.USAGE, **SUMS}
        message = {"role": "assistant", "content": "Hi", "provider_metadata": {"gateway": SUMS}}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        document = {"id": "up-1", "object": "chat.completion", "model": "x", "choices": [choice]}
        await call.answer(200, {**document, "usage": usage, **SUMS}, **{"x-cost": PLANTED})
        return
    await call.raw(fake.STREAM_HEAD)
    for text in fake.TOKENS:
        await call.token(text)
    await call.event({**fake._delta({}, "stop"), "usage": {**fake.USAGE, **SUMS}, **SUMS})
    await call.event({**fake._usage_chunk(), **SUMS})
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


def catalogue(upstream: FakeUpstream) -> None:
    reseller = add_provider("reseller", upstream.url)
    upstream.behaviours["tells-sums"] = tells_sums
    add_offer(provider=reseller, model="fox", upstream_model="tells-sums")
    dearer = add_provider("dearer", upstream.url)
    add_offer(provider=dearer, model="fox", upstream_model="tells-sums", dearer=3)


@pytest.fixture
def buyer(the_world: World) -> Iterator[Caller]:
    now = timezone.now()
    slug = f"retail-{now:%H%M%S%f}"
    plan = PriceList.objects.create(kind=PriceList.Kind.PLAN, slug=slug, name=slug)
    cost = price_lists.cost_list()
    for price_list, change in ((plan, MARGIN_PPM), (cost, COST_PPM)):
        price_lists.set_rule(
            price_list=price_list, pattern="", change_ppm=change, actor="ada", now=now
        )
    caller = the_world.caller(plan=plan)
    the_world.reload_snapshot()
    yield caller
    for price_list in (plan, cost):
        price_lists.set_rule(
            price_list=price_list, pattern="", change_ppm=None, actor="ada", now=timezone.now()
        )


def asked(world: World, caller: Caller) -> dict[str, httpx.Response]:
    headers = {**caller.headers, "x-tokenhouse-explain": "1"}
    with httpx.Client(base_url=world.plane.url, headers=headers, timeout=PATIENCE_S) as client:
        found = {
            path: client.get(path) for path in ("/v1/models", "/v1/models/fox", "/v1/key", "/ready")
        }
        found["/v1/quote"] = client.post("/v1/quote", json=question("fox"))
        for stream in (False, True):
            body = question("fox", stream=stream)
            chat = client.post("/v1/chat/completions", json=body)
            found[f"chat, stream {stream}"] = chat
            version = {"anthropic-version": "2023-06-01"}
            message = client.post("/v1/messages", json=body, headers=version)
            found[f"messages, stream {stream}"] = message
    return found


def test_no_answer_says_what_a_supplier_charges(the_world: World, buyer: Caller) -> None:
    # given what was charged, and what suppliers charge, in tokens and in sums
    answers = asked(the_world, buyer)
    events = the_world.settled(buyer, count=4)
    supplied = {int(event["supplier_cost_pico"]) for event in events}
    charged = {int(event["tenant_cost_pico"]) for event in events}
    assert len(supplied) == len(charged) == 1
    assert supplied.isdisjoint(charged)
    margins = {pico - cost for pico in charged for cost in supplied}
    listed = (INPUT_PICO, CACHED_PICO, OUTPUT_PICO)
    secrets = {text for pico in supplied | margins for text in sums_as_text(pico)}
    secrets |= {text for pico in listed for text in rates_as_text(pico * 870_000 // 10**6)}
    secrets = {PLANTED, *(text for text in secrets if len(text) > 5)}

    # then
    assert {answer.status_code for answer in answers.values()} == {200}
    told = [
        (name, text)
        for name, answer in answers.items()
        for text in secrets
        if text in answer.text or text in str(answer.headers)
    ]
    assert told == []


def test_models_are_listed_at_what_the_key_pays(the_world: World, buyer: Caller) -> None:
    # given
    others = the_world.caller()

    def pricing(caller: Caller) -> Any:
        answer = httpx.get(
            f"{the_world.plane.url}/v1/models/fox", headers=caller.headers, timeout=PATIENCE_S
        )
        return answer.json()["pricing"]

    # then
    assert pricing(buyer) == {
        "prompt": usd_json(INPUT_PICO * 12 // 10).decode(),
        "completion": usd_json(OUTPUT_PICO * 12 // 10).decode(),
        "input_cache_read": usd_json(CACHED_PICO * 12 // 10).decode(),
    }
    assert pricing(others)["prompt"] == usd_json(INPUT_PICO).decode()
