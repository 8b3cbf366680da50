"""Clocks that are wrong by an hour: no request is booked at a wrong time, and no dead key lives."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.fakes.shifted_clock import ShiftedClock, shifted_clock
from tests.fakes.upstream import FakeUpstream
from tests.gateway.world import World, add_offer, add_provider, eventually, warm, world
from tests.patience import PATIENCE_S

HOUR_S = 3_600
AGREE_WITHIN_MS = 2_000


def catalogue(upstream: FakeUpstream) -> None:
    add_offer(provider=add_provider("pool", upstream.url), model="good", upstream_model="good")


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> ShiftedClock:
    return shifted_clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def shifted(
    committed: None, services: Any, clock: ShiftedClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("plane")
    with world(services.redis.url, folder, catalogue, clock.variables) as made:
        yield made


@pytest.fixture
def house(shifted: World, clock: ShiftedClock) -> Iterator[World]:
    clock.set(0)
    warm(shifted.redis)
    if shifted.plane.process is None:
        shifted.plane.start()
    eventually(lambda: reason(shifted) == "")
    yield shifted
    clock.set(0)


def reason(world: World) -> str:
    said: str = httpx.get(f"{world.plane.url}/ready", timeout=PATIENCE_S).json()["reason"]
    return said


def redis_ms(world: World) -> int:
    seconds, micros = world.redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_jumps_reaches_no_request(
    house: World, clock: ShiftedClock, off_s: int
) -> None:
    # given
    alice = house.caller()
    # when: from its first moment on
    clock.set(off_s)
    answers = [house.chat(alice, "good").status_code for _ in range(20)]
    # then
    assert set(answers) == {200}
    for event in house.settled(alice, 20):
        assert abs(event["occurred_ms"] - redis_ms(house)) < 60_000
        assert abs(event["settled_ms"] - redis_ms(house)) < 60_000
    assert reason(house) == ""


def test_a_key_that_expired_while_the_clock_is_behind_is_dead(
    house: World, clock: ShiftedClock
) -> None:
    # given: dead for half an hour
    alice = house.caller()
    alice.key.expires_at = datetime.now(UTC) - timedelta(minutes=30)
    alice.key.save()
    # when
    clock.set(-HOUR_S)
    answer = house.chat(alice, "good")
    # then
    assert answer.status_code == 401
    assert house.events(alice) == []


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S])
def test_a_process_that_begins_with_a_wrong_clock_admits_nobody_until_it_is_right(
    house: World, clock: ShiftedClock, off_s: int
) -> None:
    # given
    alice = house.caller()
    before = house.register(alice)
    house.plane.stop()
    clock.set(off_s)
    started = threading.Thread(target=house.plane.start)
    started.start()
    try:
        eventually(lambda: _refuses(house))
        # when
        answer = house.chat(alice, "good")
        models = httpx.get(
            f"{house.plane.url}/v1/models", headers=alice.headers, timeout=PATIENCE_S
        )
        # then
        for refused in (answer, models):
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "clock_wrong"
            assert int(refused.headers["retry-after"]) >= 1
        said_ms = int(reason(house).removesuffix(" ms").rpartition(" ")[2])
        assert abs(said_ms - off_s * 1000) < AGREE_WITHIN_MS
        assert house.register(alice) == before
    finally:
        clock.set(0)
        started.join()
    # and
    eventually(lambda: house.chat(alice, "good").status_code == 200)


def _refuses(house: World) -> bool:
    try:
        return "the clock differs from Redis'" in reason(house)
    except httpx.TransportError:
        return False
