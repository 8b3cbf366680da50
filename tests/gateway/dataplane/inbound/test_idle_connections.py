"""Strangers who connect and say nothing, and a process with hardly any descriptors."""

import contextlib
import errno
import json
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gateway.dataplane.inbound import descriptors
from tests.fakes.upstream import FakeUpstream
from tests.gateway.world import Caller, World, add_offer, add_provider, eventually, warm
from tests.patience import PATIENCE_S, ran_s

pytestmark = pytest.mark.alone

STRANGERS = 2_000
FEW = 256
ROOM = descriptors.room(FEW, wished=4_096)
BACK_WITHIN_S = 10.0
# The room for the strangers is half as many.
LIMITS = {"TOKENHOUSE_CONNECTIONS_MAX": "1024"}


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
    eventually(
        lambda: httpx.get(f"{the_world.plane.url}/ready", timeout=PATIENCE_S).status_code == 200
    )
    yield the_world
    the_world.upstream.gate.set()


@pytest.fixture
def short_of_descriptors(world: World) -> Iterator[World]:
    """The same with 256 of them, which it cannot raise."""
    if shutil.which("prlimit") is None:
        pytest.skip("there is no prlimit")
    plane = world.plane
    plane.stop()
    plane.prefix, plane.connections_max = ("prlimit", f"--nofile={FEW}:{FEW}"), ROOM.connections_max
    plane.start()
    yield world
    plane.stop()
    plane.prefix, plane.connections_max = (), 1_024
    plane.start()


@contextlib.contextmanager
def strangers(world: World, count: int, saying: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that send this, and then nothing."""
    with contextlib.ExitStack() as opened:
        sockets = []
        for _ in range(count):
            stranger = opened.enter_context(socket.socket())
            stranger.setblocking(False)
            assert stranger.connect_ex(("127.0.0.1", world.plane.port)) in (0, errno.EINPROGRESS)
            if saying:
                with contextlib.suppress(OSError):
                    stranger.send(saying)
            sockets.append(stranger)
        yield sockets


def ask(world: World, caller: Caller, model: str) -> httpx.Response:
    """A caller who is slow to speak is a stranger as well, and comes again."""

    def heard() -> httpx.Response | None:
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            return world.chat(caller, model)
        return None

    answer = eventually(heard)
    assert answer is not None
    return answer


def booked(world: World, caller: Caller, answers: list[httpx.Response]) -> None:
    """Each answer that was served is booked, and at what it told; nothing else is."""
    told = {
        answer.headers["x-request-id"]: round(answer.json()["usage"]["cost"] * 10**9)
        for answer in answers
        if answer.status_code == 200
    }
    events = world.settled(caller, len(told))
    assert {event["request_id"]: event["charged_nano"] for event in events} == told
    assert world.register(caller)["held"] == 0


@pytest.mark.parametrize("saying", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"])
def test_two_thousand_silent_strangers_stop_nobody(world: World, saying: bytes) -> None:
    # given
    alice = world.caller()
    with strangers(world, STRANGERS, saying):
        # when
        answers, took_s = [], []
        for _ in range(50):
            began = ran_s()
            answers.append(world.chat(alice, "good"))
            took_s.append(ran_s() - began)
    # then: nobody is refused, and nobody waits for long
    assert {answer.status_code for answer in answers} == {200}
    assert max(took_s) < BACK_WITHIN_S
    booked(world, alice, answers)


def test_who_is_being_served_yields_to_nobody(world: World) -> None:
    # given: silent themselves, because their seller is
    alice = world.caller()
    world.reload_snapshot()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(world.chat, alice, "gated") for _ in range(20)]
        eventually(lambda: len(world.upstream.calls("gated")) == 20)
        # when
        with strangers(world, STRANGERS):
            assert world.chat(alice, "good").status_code == 200
            time.sleep(2)
            world.upstream.gate.set()
            answers = [each.result() for each in asked]
    # then
    assert {answer.status_code for answer in answers} == {200}


def test_few_descriptors_are_a_503_and_no_sellers_fault(short_of_descriptors: World) -> None:
    # given: strangers, and more callers than there are descriptors for
    world = short_of_descriptors
    alice = world.caller()
    world.reload_snapshot()
    callers = 2 * ROOM.requests_max
    with strangers(world, 100), ThreadPoolExecutor(callers) as pool:
        # when
        asked = [pool.submit(ask, world, alice, "gated") for _ in range(callers)]
        eventually(lambda: len(world.upstream.calls("gated")) >= ROOM.requests_max // 2)
        eventually(lambda: sum(each.done() for each in asked) >= ROOM.requests_max // 2)
        world.upstream.gate.set()
        answers = [each.result() for each in asked]
    # then
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) >= ROOM.requests_max // 2
    assert refused
    for answer in refused:
        assert answer.status_code == 503, answer.text
        assert json.loads(answer.content)["error"]["code"] == "too_many_connections"
        assert int(answer.headers["retry-after"]) >= 1
    booked(world, alice, answers)
    # and it is back at once, with its offer open
    began = ran_s()
    eventually(lambda: world.chat(alice, "good").status_code == 200)
    assert ran_s() - began < BACK_WITHIN_S


@pytest.mark.parametrize(
    ("limit", "wished", "room"),
    [(20_000, 4_096, (4_096, 4_096)), (1_024, 4_096, (640, 320)), (256, 4_096, (128, 64))],
)
def test_the_room_is_what_the_descriptors_give(
    limit: int, wished: int, room: tuple[int, int]
) -> None:
    assert descriptors.room(limit, wished=wished) == room
