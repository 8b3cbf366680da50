"""What one process learned of a seller's tokenizer serves every process, also after a restart."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing import basis
from billing.drain import metering
from billing.models import UsageEvent
from providers.boards import measurements
from providers.models import CountedTexts
from tests.fakes import upstream as fake
from tests.fakes.upstream import STREAM_HEAD, TOKENS, Exchange, FakeUpstream
from tests.gateway.dataplane.inbound.test_dataplane_clients import leaving
from tests.gateway.world import DataPlane, World, add_offer, add_provider
from tests.ports import free_port

PER_WORD = 3
WORDS = "what does the quick brown fox do all day in these silent northern woods".split()


def counted(messages: list[dict[str, Any]]) -> int:
    """A tokenizer that nobody would guess."""
    return sum(PER_WORD * len(message["content"].split()) for message in messages) + 5


async def counts(call: Exchange) -> None:
    prompt, answer = counted(call.seen.body["messages"]), PER_WORD * len(TOKENS)
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    await call.raw(STREAM_HEAD)
    await call.token("".join(TOKENS))
    await call.event(fake._delta({}, "stop"))
    await call.event({**fake._usage_chunk(), "usage": usage})
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


async def counts_unless_left(call: Exchange) -> None:
    if len(call.seen.body["messages"][0]["content"].split()) != 5:
        await counts(call)
        return
    await call.raw(STREAM_HEAD)
    await call.token("".join(TOKENS))
    if not await call.reader.read(1):
        call.seen.hung_up = True


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours["counts"] = counts_unless_left
    seller = add_provider("seller", upstream.url, cancel_stops_billing=True)
    add_offer(provider=seller, model="counts", upstream_model="counts")


def learn(world: World) -> None:
    """Twelve answers of three tenants, and what comes behind them."""
    callers = [world.caller() for _ in range(3)]
    for number in range(12):
        said = " ".join(WORDS[: 6 + number % 8])
        messages = [{"role": "user", "content": said}]
        answer = world.chat(callers[number % 3], "counts", stream=True, messages=messages)
        assert answer.status_code == 200
    for caller in callers:
        world.settled(caller, 4)
    metering.drain_all(world.redis, now=datetime.now(UTC))
    measurements.record(now=datetime.now(UTC))


def first_call(world: World) -> tuple[str, int, int]:
    """A new tenant asks and leaves: the basis of its charge, and the tokens of both sides."""
    stranger = world.caller()
    with leaving(world, stranger, "counts") as read_until:
        read_until(TOKENS[-1].encode())
    (event,) = world.settled(stranger)
    assert event["outcome"] == "client_cancelled"
    usage = event["usage"]
    return event["usage_source"], usage["input_tokens"], usage["output_tokens"]


@pytest.fixture
def second(the_world: World, tmp_path: Path) -> Any:
    variables = {**the_world.plane.environment, "TOKENHOUSE_DATA_DIR": str(tmp_path)}
    plane = DataPlane(free_port(), variables, tmp_path / "second.log")
    yield plane
    if plane.process is not None:
        plane.kill()


def test_a_second_process_and_a_restarted_one_estimate_as_the_first(
    the_world: World, second: DataPlane
) -> None:
    # given
    learn(the_world)
    the_world.reload_snapshot()
    true = PER_WORD * 5 + 5, PER_WORD * len(TOKENS)
    # when
    first = first_call(the_world)
    second.start()
    beside = first_call(replace(the_world, plane=second))
    the_world.plane.kill()
    the_world.plane.start()
    restarted = first_call(the_world)
    # then
    assert first[0] == basis.MEASURED
    assert first[1:] == pytest.approx(true, rel=0.06)
    assert (beside, restarted) == (first, first)


def test_what_is_kept_of_a_text_are_features_and_counts(the_world: World) -> None:
    (row,) = CountedTexts.objects.all()
    kept = msgspec.msgpack.decode(bytes(row.samples))
    taught = UsageEvent.objects.filter(detail__has_key="taught")

    assert row.offer.sku == "seller/counts"
    assert kept
    for sample in [*kept, *(each for event in taught for each in event.detail["taught"])]:
        shape, *counts_of_it = sample
        assert all(type(count) is int for count in (*shape, *counts_of_it))
