"""A data plane that stands still and a Redis without memory, under load: what was told is booked,
nobody's offer is closed, and it comes back by itself.

Two attached servers sell here, one model each; both have answers under way when it happens.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import redis

from tests.e2e.house import House
from tests.e2e.load import BACK_WITHIN_S, Load
from tests.e2e.stack import Stack
from tests.fakes.pool import selling
from tests.fakes.upstream import FakeUpstream, Seen, two_second_trickle
from tests.patience import ran_s

# Of each seller: what is asked for over and over, what ends while nobody reads it, and what goes on
# after that.
SELLERS = {"red": ("red", "red-brief", "red-long"), "blue": ("blue", "blue-brief", "blue-long")}
STREAMS = 4  # of each kind and seller
CALLERS = 30
STILL_S = 60.0
MAIN_STILL_S = 10.0
FULL_FOR_S = 5.0
BALLAST_BYTES = 100_000
ROOM_BYTES = 400_000


@pytest.fixture(scope="module")
def sellers() -> Iterator[dict[str, FakeUpstream]]:
    fakes = {name: selling(*models) for name, models in SELLERS.items()}
    for name, fake in fakes.items():
        fake.behaviours |= {
            f"{name}-brief": two_second_trickle,
            f"{name}-long": fake.trickles_until_released,
        }
        fake.start()
    yield fakes
    for fake in fakes.values():
        fake.stop()


@pytest.fixture(scope="module")
def market(sellers: dict[str, FakeUpstream]) -> Iterator[House]:
    running = Stack(TOKENHOUSE_WORKERS="0", TOKENHOUSE_DATAPLANE_PROCESSES="2")
    try:
        running.start()
        opened = House(running, sellers["red"])
        for name, fake in sellers.items():
            opened.attach(name, fake.url)
        key = running.api_keys[0]
        for name in SELLERS:
            running.eventually(partial(running.serves, key=key, model=name))
        yield opened
    finally:
        running.close()


@pytest.fixture
def load(market: House, sellers: dict[str, FakeUpstream]) -> Iterator[Load]:
    for fake in sellers.values():
        fake.gate.clear()
    yield Load(market, market.customer(), models=tuple(SELLERS))
    for fake in sellers.values():
        fake.gate.set()


@contextmanager
def streaming(load: Load, sellers: dict[str, FakeUpstream]) -> Iterator[None]:
    """Streams are under way at both sellers; all have ended when the block has."""
    names = [name for _, *kinds in SELLERS.values() for name in kinds] * STREAMS
    before = {name: len(_calls(sellers, name)) for name in names}
    threads = [
        threading.Thread(target=load.ask, args=(name,), kwargs={"stream": True}) for name in names
    ]
    for thread in threads:
        thread.start()

    def are_under_way() -> bool:
        new = [call for name in before for call in _calls(sellers, name)[before[name] :]]
        return len(new) == len(names) and all(call.sent > 1 for call in new)

    load.house.stack.eventually(are_under_way)
    yield
    for thread in threads:
        thread.join()


def _calls(sellers: dict[str, FakeUpstream], model: str) -> list[Seen]:
    return [call for fake in sellers.values() for call in fake.calls(model)]


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _outcomes(load: Load) -> set[str]:
    """How the attempts have ended. A lease that nobody could renew is not one, and leaves an event
    of its own below zero, with what was delivered until then."""
    rows = load.house.stack.sql(
        "SELECT DISTINCT outcome FROM billing_usageevent WHERE tenant_id = %s AND attempt >= 0",
        load.customer.tenant,
    )
    return {outcome for (outcome,) in rows}


def test_a_data_plane_that_stood_still_for_a_minute_costs_nobody_anything(
    load: Load, sellers: dict[str, FakeUpstream]
) -> None:
    # given
    server = load.house.stack.children()["dataplane"]
    with load.going_on():
        with streaming(load, sellers):
            # when: its main process and all that serve
            with stopped([server, *load.house.planes()]):
                time.sleep(STILL_S)
            # then
            load.is_back()
            for fake in sellers.values():
                fake.gate.set()
            ended_by = ran_s() + BACK_WITHIN_S
        assert ran_s() < ended_by
    # and: every stream was served whole, and so was who came meanwhile
    assert set(load.statuses) == {200}, load.refusals
    load.is_booked_as_told()
    assert _outcomes(load) == {"ok"}
    _is_open_to_others(load.house)


def test_a_main_process_that_stands_still_is_missed_by_nobody(
    load: Load, sellers: dict[str, FakeUpstream]
) -> None:
    # given
    with load.going_on(), streaming(load, sellers):
        # when
        with stopped([load.house.stack.children()["dataplane"]]):
            answered = len(load.statuses)
            time.sleep(MAIN_STILL_S)
            for fake in sellers.values():
                fake.gate.set()
            # then
            load.is_back()
            load.house.stack.eventually(lambda: len(load.statuses) > answered + len(SELLERS))
        load.is_back()
    assert set(load.statuses) == {200}, load.refusals
    load.is_booked_as_told()
    assert _outcomes(load) == {"ok"}
    _is_open_to_others(load.house)


def test_a_redis_at_its_memory_limit_costs_nobody_anything(
    load: Load, sellers: dict[str, FakeUpstream]
) -> None:
    # given
    load.models = tuple(SELLERS) * (CALLERS // len(SELLERS))
    load.pause_s = 0.5

    def is_felt(client: redis.Redis) -> bool:
        """What was freed meanwhile is used up again."""
        _takes(client)
        return 503 in load.statuses

    with load.going_on():
        with streaming(load, sellers), load.house.stack.redis() as client:
            # when
            with _full(client):
                load.house.stack.eventually(partial(is_felt, client))
                time.sleep(FULL_FOR_S / 2)
                for fake in sellers.values():
                    fake.gate.set()
                time.sleep(FULL_FOR_S / 2)
            # then
            load.is_back()
        time.sleep(1.0)
    assert set(load.statuses) == {200, 503}
    load.is_booked_as_told()
    assert _outcomes(load) == {"ok"}
    _is_open_to_others(load.house)


@contextmanager
def _full(client: redis.Redis) -> Iterator[None]:
    """A limit somewhat above what it has, and somebody who uses up the rest."""
    limit = client.info("memory")["used_memory"] + ROOM_BYTES
    client.config_set("maxmemory", limit)
    client.config_set("maxmemory-policy", "noeviction")
    try:
        for _ in range(10 * ROOM_BYTES // BALLAST_BYTES):
            if not _takes(client):
                break
        yield
    finally:
        client.config_set("maxmemory", 0)
        client.delete("ballast")


def _takes(client: redis.Redis) -> bool:
    try:
        client.append("ballast", b"x" * BALLAST_BYTES)
    except redis.exceptions.OutOfMemoryError:
        return False
    return True


def _is_open_to_others(house: House) -> None:
    """No offer is closed to whoever had nothing to do with it."""
    bystander = Load(house, house.customer())
    assert [bystander.ask(model) for model in SELLERS] == [200] * len(SELLERS)
