"""One tenant's sick requests at an offer that all share: who is refused, and who is not."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from billing.drain import metering
from providers.boards import measurements
from providers.machines import checks
from providers.market import credentials
from providers.models import Credential
from tests.fakes import upstream as fake
from tests.fakes.upstream import Exchange, FakeUpstream, good
from tests.gateway.world import Caller, World, add_offer, add_provider
from tests.providers.made_offers import NOW

TENANTS = 200
POISON = {
    "500": lambda call: call.answer(500, fake._error("cuda error")),
    "503": lambda call: call.answer(503, fake._error("busy")),
    "reset": fake.resets,
    "cut": fake.cut_before_content,
    "nonsense": lambda call: call.answer(200, {"what": "is this"}),
    "429": lambda call: call.answer(429, fake._error("slow down"), retry_after="60"),
    "404": lambda call: call.answer(404, fake._error("no such model")),
    "403": lambda call: call.answer(403, fake._error("you may not")),
    "403-moderated": lambda call: call.answer(403, fake._error("flagged by our moderation")),
    "403-model": lambda call: call.answer(403, fake._error("no access to model m")),
    "402": lambda call: call.answer(402, fake._error("pay more")),
    "402-size": lambda call: call.answer(402, fake._error("needs fewer max_tokens")),
    "400-balance": lambda call: call.answer(400, fake._error("your credit balance is too low")),
}


async def poisoned_by_the_prompt(call: Exchange) -> None:
    """Well, unless the prompt names a kind of poison."""
    prompt = call.seen.body["messages"][0]["content"]
    kind = prompt.removeprefix("poison ")
    await (POISON[kind](call) if kind in POISON else good(call))


def catalogue(upstream: FakeUpstream) -> None:
    provider = add_provider("shared", upstream.url)
    credentials.store(provider=provider, label="house", secret="house-secret")
    for name in ("many", *POISON):
        upstream.behaviours[name] = poisoned_by_the_prompt
        add_offer(provider=provider, model=name, upstream_model=name)


def poison(world: World, caller: Caller, model: str, kind: str) -> int:
    sick = [{"role": "user", "content": f"poison {kind}"}]
    return world.chat(caller, model, messages=sick).status_code


@pytest.mark.alone
def test_two_hundred_tenants_and_one_poisoner(the_world: World) -> None:
    # given
    poisoner = the_world.caller()
    others = [the_world.caller() for _ in range(TENANTS)]
    the_world.reload_snapshot()  # What a key's first look-up takes is not what this is about.
    done: list[int] = []
    # when: it never stops, with whatever closes an offer, while everybody else calls once
    with ThreadPoolExecutor(9) as threads:
        healthy = threads.map(lambda each: the_world.chat(each, "many").status_code, others[1:])

        def hammer() -> None:
            kinds = [kind for kind in POISON if kind not in ("429", "404")]
            for turn in range(10_000):
                poison(the_world, poisoner, "many", kinds[turn % len(kinds)])
                if done:
                    return

        hammering = threads.submit(hammer)
        statuses = list(healthy)
        done.append(1)
        hammering.result()
    # then
    assert statuses == [200] * (TENANTS - 1)
    # and who comes when the poisoner was the last who called is served as well
    for _ in range(3):
        poison(the_world, poisoner, "many", "500")
    assert the_world.chat(others[0], "many").status_code == 200


@pytest.mark.parametrize("kind", POISON)
def test_a_poisoner_closes_an_offer_to_itself_at_most(the_world: World, kind: str) -> None:
    # given
    poisoner, bystander = the_world.caller(), the_world.caller()
    # when: also where nobody else was ever served there
    statuses = {poison(the_world, poisoner, kind, kind) for _ in range(5)}
    # then
    assert 200 not in statuses
    answer = the_world.chat(bystander, kind)
    assert answer.status_code == 200, answer.text
    call = the_world.upstream.calls(kind)[-1]
    assert call.headers["authorization"] == "Bearer house-secret"


def test_no_poison_kills_the_credential_of_all(the_world: World) -> None:
    # given: each kind once, and all of them taken up by the boards' reader
    metering.ensure_groups(the_world.redis)
    poisoner, bystander = the_world.caller(), the_world.caller()
    for kind in POISON:
        poison(the_world, poisoner, kind, kind)
    the_world.settled(poisoner, len(POISON))
    metering.drain_all(the_world.redis, now=datetime.now(UTC))
    measurements.record(now=datetime.now(UTC))
    # when: what is doubted is asked of the seller, who takes it
    assert Credential.objects.get().doubted_at is not None
    checks.settle_doubts(now=NOW)
    the_world.reload_snapshot()
    # then
    credential = Credential.objects.get()
    assert (credential.dead_reason, credential.doubted_at) == ("", None)
    assert the_world.chat(bystander, "many").status_code == 200
