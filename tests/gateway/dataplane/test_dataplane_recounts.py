"""What a seller did not count an in-house worker of the same model counts, with its tokenizer."""

from datetime import UTC, datetime
from typing import Any

import pytest

from billing import basis
from providers.market import credentials
from providers.models import Provider, Worker, WorkerKey
from tests.fakes import upstream as fake
from tests.fakes.upstream import STREAM_HEAD, TOKENS, Exchange, FakeUpstream
from tests.gateway.dataplane.inbound.test_dataplane_clients import leaving
from tests.gateway.world import (
    Caller,
    World,
    add_offer,
    add_provider,
    cost_pico,
    question,
    stream_events,
)
from tests.patience import ran_s

LIMITS = {"TOKENHOUSE_DEADLINE_MS": "30000"}
PROMPT_TOKENS, ANSWER_TOKENS = 29, 11
SHOWN = "".join(TOKENS)


async def without_usage(call: Exchange) -> None:
    if not call.seen.body.get("stream"):
        message = {"role": "assistant", "content": SHOWN}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        await call.answer(200, {"id": "up", "choices": choices})
        return
    await call.raw(STREAM_HEAD)
    for text in TOKENS:
        await call.token(text)
    finish = {"index": 0, "delta": {}, "finish_reason": "stop"}
    await call.event({"id": "up", "choices": [finish]})
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


def counts(prompt_tokens: int, answer_tokens: int) -> fake.Behaviour:
    async def says(call: Exchange) -> None:
        assert call.seen.path == "/v1/counts"
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answer_tokens,
            "total_tokens": prompt_tokens + answer_tokens,
        }
        await call.answer(200, {"usage": usage})

    return says


async def too_old(call: Exchange) -> None:
    await call.answer(404, {"error": {"message": "There is no /v1/counts here"}})


# What each model's seller does, and its worker.
MODELS = {
    "whole": (without_usage, counts(PROMPT_TOKENS, ANSWER_TOKENS)),
    "cut": (fake.cut, counts(PROMPT_TOKENS, ANSWER_TOKENS)),
    "left": (fake.stalls, counts(PROMPT_TOKENS, ANSWER_TOKENS)),
    "counted": (fake.good, counts(PROMPT_TOKENS, ANSWER_TOKENS)),
    "old": (without_usage, too_old),
    "silent": (without_usage, fake.silent),
    "liar": (without_usage, counts(10**6, 10**6)),
}


def catalogue(upstream: FakeUpstream) -> None:
    house = add_provider("house", "", kind=Provider.Kind.IN_HOUSE)
    seller = add_provider("seller", upstream.url)
    key = WorkerKey.objects.create(label="k", public_id="k", secret_hash=b"")
    now = datetime.now(UTC)
    for model, (sells, worker) in MODELS.items():
        upstream.behaviours |= {f"sold-{model}": sells, f"own-{model}": worker}
        add_offer(provider=seller, model=model, upstream_model=f"sold-{model}")
        own = add_offer(provider=house, model=model, upstream_model=f"own-{model}", dearer=2)
        Worker.objects.create(
            name=model,
            key=key,
            offer=own,
            base_url=upstream.url.removesuffix("/v1"),
            bearer_ciphertext=credentials.encrypt("open sesame"),
            usd_per_hour_pico=10**11,
            usd_per_hour_source="assumed",
            registered_at=now,
            heartbeat_at=now,
        )


@pytest.fixture
def alice(the_world: World) -> Caller:
    return the_world.caller()


def assert_recounted(event: dict[str, Any], world: World, *, shown: str) -> None:
    """Charged the worker's counts at the prices of the seller that served."""
    model = event["model"]
    assert event["supplier"] == "seller"
    assert event["usage_source"] == basis.RECOUNTED
    assert event["detail"]["basis"] == [basis.RECOUNTED, basis.RECOUNTED]
    assert event["usage"] == {"input_tokens": PROMPT_TOKENS, "output_tokens": ANSWER_TOKENS}
    assert event["tenant_cost_pico"] == cost_pico(PROMPT_TOKENS, 0, ANSWER_TOKENS)
    (asked,) = [
        call
        for call in world.upstream.calls(f"own-{model}")[-1:]
        if call.headers["authorization"] == "Bearer open sesame"
    ]
    assert asked.body["answer"] == shown
    assert asked.body["messages"] == question(model)["messages"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_whole_answer_without_usage_costs_what_the_worker_counts(
    the_world: World, alice: Caller, stream: bool
) -> None:
    # when
    answer = the_world.chat(alice, "whole", stream=stream)
    # then: and the receipt says so
    (event,) = the_world.settled(alice)
    assert (answer.status_code, event["outcome"]) == (200, "ok")
    assert_recounted(event, the_world, shown=SHOWN)
    told = stream_events(answer.text)[-2] if stream else answer.json()
    assert told["usage"]["completion_tokens"] == ANSWER_TOKENS
    assert told["usage"]["usage_source"] == basis.RECOUNTED
    assert round(told["usage"]["cost"] * 10**12) == event["tenant_cost_pico"]


def test_an_answer_that_is_cut_costs_what_the_worker_counts_of_what_was_shown(
    the_world: World, alice: Caller
) -> None:
    # when
    the_world.chat(alice, "cut", stream=True)
    # then
    (event,) = the_world.settled(alice)
    assert event["outcome"] == "upstream_cut"
    assert_recounted(event, the_world, shown="".join(TOKENS[:3]))


def test_an_answer_that_its_caller_left_costs_the_same(the_world: World, alice: Caller) -> None:
    # when
    with leaving(the_world, alice, "left") as read_until:
        read_until(TOKENS[2].encode())
    # then
    (event,) = the_world.settled(alice)
    assert event["outcome"] == "client_cancelled"
    assert_recounted(event, the_world, shown="".join(TOKENS[:3]))


def assert_not_asked(world: World, caller: Caller, model: str, source: str, **more: Any) -> None:
    before = len(world.upstream.calls(f"own-{model}"))
    assert world.chat(caller, model, **more).status_code == 200
    (event,) = world.settled(caller)
    assert (event["supplier"], event["usage_source"]) == ("seller", source)
    assert len(world.upstream.calls(f"own-{model}")) == before


def test_what_the_seller_counted_nobody_else_is_asked_for(the_world: World, alice: Caller) -> None:
    assert_not_asked(the_world, alice, "counted", basis.PROVIDER)


def test_a_worker_that_the_caller_left_out_is_shown_no_text(
    the_world: World, alice: Caller
) -> None:
    only = {"only": ["seller"]}
    assert_not_asked(the_world, alice, "whole", basis.BYTES, provider=only)


def test_texts_of_several_choices_lie_mixed_and_are_estimated(
    the_world: World, alice: Caller
) -> None:
    assert_not_asked(the_world, alice, "whole", basis.BYTES, n=2)


@pytest.mark.parametrize("model", ["old", "silent", "liar"])
def test_a_worker_that_does_not_count_leaves_the_estimate(
    the_world: World, alice: Caller, model: str
) -> None:
    # when
    began = ran_s()
    answer = the_world.chat(alice, model)
    took_s = ran_s() - began
    # then: within the limit of what a receipt waits for
    (event,) = the_world.settled(alice)
    assert (answer.status_code, event["outcome"]) == (200, "ok")
    assert took_s < 5
    assert event["detail"]["basis"] == [basis.BYTES, basis.BYTES]
    assert event["usage"] == {"input_tokens": 13, "output_tokens": 7}


def test_a_worker_that_does_not_answer_is_not_asked_for_a_while(
    the_world: World, alice: Caller
) -> None:
    # given
    the_world.chat(alice, "silent")
    before = len(the_world.upstream.calls("own-silent"))
    # when
    answer = the_world.chat(alice, "silent")
    # then: one tenant's text kept it busy; another's may not
    assert answer.status_code == 200
    assert len(the_world.upstream.calls("own-silent")) == before
    the_world.chat(the_world.caller(), "silent")
    assert len(the_world.upstream.calls("own-silent")) == before + 1
