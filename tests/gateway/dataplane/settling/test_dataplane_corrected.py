"""What an operator corrects holds at once: nothing that was held against it before stays."""

from datetime import UTC, datetime

import pytest

from billing.drain import metering
from billing.registers import SNAPSHOT_VERSION_KEY
from providers.boards import measurements
from providers.market import credentials
from providers.models import Credential, Offer, Provider
from tests.fakes import upstream as fake
from tests.fakes.upstream import Exchange, FakeUpstream, good
from tests.gateway.world import World, add_offer, add_provider
from tests.patience import eventually, ran_s

# The snapshot is looked at every second.
AT_ONCE_S = 3
CASES = ("credential", "dead", "address", "limit")


async def demanding(call: Exchange) -> None:
    """Takes one credential only, and at most so many tokens of the model `limit`."""
    body = call.seen.body
    if call.seen.headers.get("authorization") != "Bearer right":
        await call.answer(401, fake._error("Incorrect API key provided."))
    elif body["model"] == "limit" and body["max_tokens"] > 40:
        await call.answer(500, fake._error("out of memory"), retry_after="60")
    else:
        await good(call)


def catalogue(upstream: FakeUpstream) -> None:
    for case in CASES:
        upstream.behaviours[case] = demanding
        wrong = case == "address"
        provider = add_provider(case, "http://127.0.0.1:9" if wrong else upstream.url)
        secret = "wrong" if case in ("credential", "dead") else "right"
        credentials.store(provider=provider, label="house", secret=secret)
        add_offer(provider=provider, model=case, upstream_model=case)


def correct(world: World, case: str) -> None:
    provider = Provider.objects.get(slug=case)
    if case in ("credential", "dead"):
        credentials.store(provider=provider, label="house", secret="right")
    elif case == "address":
        Provider.objects.filter(slug=case).update(base_url=world.upstream.url)
        credentials.clear_marks(provider_id=provider.pk)
    else:
        Offer.objects.filter(provider=provider).update(max_output_tokens=40)
        world.redis.incr(SNAPSHOT_VERSION_KEY)


@pytest.mark.parametrize("case", CASES)
def test_a_corrected_offer_serves_at_once(the_world: World, case: str) -> None:
    # given: failed until it is closed to everybody
    callers = [the_world.caller() for _ in range(3)]
    for caller in callers * 3:
        assert the_world.chat(caller, case).status_code >= 500
    assert the_world.chat(the_world.caller(), case).status_code >= 500
    if case == "dead":
        metering.ensure_groups(the_world.redis)
        metering.drain_all(the_world.redis, now=datetime.now(UTC))
        measurements.record(now=datetime.now(UTC))
        assert Credential.objects.get(provider__slug=case).dead_reason
        the_world.reload_snapshot()
        assert the_world.chat(callers[0], case).status_code == 404
    # when
    corrected_at = ran_s()
    correct(the_world, case)
    # then: for those who had failed, and for who comes anew
    eventually(lambda: the_world.chat(callers[0], case).status_code == 200, timeout_s=AT_ONCE_S)
    for caller in (*callers, the_world.caller()):
        assert the_world.chat(caller, case).status_code == 200
    assert ran_s() - corrected_at < AT_ONCE_S + 5
