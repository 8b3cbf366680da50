"""The small parts of the data plane: request ids, watchdog, unknown keys, budget, snapshot."""

import asyncio
import threading
import uuid
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from billing import registers
from billing.registers import SNAPSHOT_VERSION_KEY
from gateway.clocks.pulse import Pulse
from gateway.clocks.stopwatch import SystemClock
from gateway.dataplane.auth import Principal, UnknownKeys, key_hash_of
from gateway.dataplane.inbound import request_id
from gateway.dataplane.inbound.client import Client
from gateway.dataplane.inbound.memory_budget import Budget
from gateway.dataplane.inbound.watchdog import ClientLeft, DeadlinePassed, Silent, Watchdog
from gateway.dataplane.limits import Limits
from gateway.dataplane.plane import Plane
from gateway.dataplane.redis.pipe import RedisAddress, RedisPipe
from gateway.dataplane.snapshots import snapshot
from gateway.dataplane.snapshots.snapshot import (
    FIND_KEY_TIMEOUT_S,
    FORCED_EVERY_S,
    Snapshot,
    Snapshots,
)
from gateway.errors import InvalidApiKey, InvalidRequest, Unavailable
from tests.patience import PATIENCE_S, ran_s

PULSE = Pulse(SystemClock())
NOON_MS = 1_773_144_000_000


def test_a_request_id_is_a_uuid7_of_its_time() -> None:
    # given / when
    made = request_id.new_request_id(NOON_MS)
    # then
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
    assert registers.request_ms(made) == NOON_MS


def test_request_ids_of_one_millisecond_differ() -> None:
    assert len({request_id.new_request_id(NOON_MS) for _ in range(1000)}) == 1000


async def test_a_wait_returns_what_it_waited_for() -> None:
    # given
    watchdog = Watchdog(deadline_s=5, pulse=PULSE)
    # when / then
    assert await watchdog.wait(asyncio.sleep(0, "it"), limit_s=1, reason=Silent) == "it"
    watchdog.close()


async def test_a_limit_ends_a_wait_with_its_reason() -> None:
    # given
    watchdog = Watchdog(deadline_s=5, pulse=PULSE)
    # when / then
    with pytest.raises(Silent):
        await watchdog.wait(asyncio.sleep(5), limit_s=0.02, reason=Silent)
    # and: the task goes on as if nothing had happened
    assert await watchdog.wait(asyncio.sleep(0, "it"), limit_s=1, reason=Silent) == "it"
    watchdog.close()


async def test_the_deadline_comes_before_a_longer_limit() -> None:
    # given
    watchdog = Watchdog(deadline_s=0.03, pulse=PULSE)
    # when / then
    with pytest.raises(DeadlinePassed):
        await watchdog.wait(asyncio.sleep(5), limit_s=5, reason=Silent)
    watchdog.close()


async def test_a_client_that_leaves_ends_the_wait() -> None:
    # given
    watchdog = Watchdog(deadline_s=5, pulse=PULSE)
    asyncio.get_running_loop().call_later(0.02, watchdog.note_client_left)
    # when / then
    with pytest.raises(ClientLeft):
        await watchdog.wait(asyncio.sleep(5), limit_s=5, reason=Silent)
    with pytest.raises(ClientLeft):
        await watchdog.wait(asyncio.sleep(5), limit_s=5, reason=Silent)
    watchdog.close()


async def test_a_client_that_leaves_does_not_end_a_wait_it_has_no_part_in() -> None:
    # given
    watchdog = Watchdog(deadline_s=5, pulse=PULSE)
    asyncio.get_running_loop().call_later(0.01, watchdog.note_client_left)
    # when
    got = await watchdog.wait(
        asyncio.sleep(0.05, "it"), limit_s=5, reason=Silent, client_matters=False
    )
    # then
    assert got == "it"
    assert watchdog.client_left
    watchdog.close()


async def test_a_cancellation_from_outside_passes_through() -> None:
    # given
    async def work() -> None:
        watchdog = Watchdog(deadline_s=5, pulse=PULSE)
        await watchdog.wait(asyncio.sleep(5), limit_s=5, reason=Silent)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    # when
    task.cancel()
    # then
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_unknown_key_is_looked_up_once_for_all_and_remembered() -> None:
    # given
    asked: list[bytes] = []
    now = 0.0

    async def lookup(key_hash: bytes) -> None:
        asked.append(key_hash)
        await asyncio.sleep(0.01)

    unknown = UnknownKeys(lookup, monotonic=lambda: now)
    # when
    found = await asyncio.gather(*(unknown.find(b"k") for _ in range(50)))
    await unknown.find(b"k")
    # then
    assert found == [None] * 50
    assert asked == [b"k"]
    # and: not for ever, and not beyond a new snapshot
    now = 11.0
    await unknown.find(b"k")
    unknown.forget()
    await unknown.find(b"k")
    assert len(asked) == 3


async def test_a_new_key_is_not_looked_up_for_each_request_until_a_snapshot_has_it() -> None:
    # given
    asked: list[bytes] = []
    now = 0.0
    principal = cast(Principal, object())

    async def lookup(key_hash: bytes) -> Principal:
        asked.append(key_hash)
        return principal

    unknown = UnknownKeys(lookup, monotonic=lambda: now)
    # when
    found = [await unknown.find(b"k") for _ in range(50)]
    # then
    assert found == [principal] * 50
    assert asked == [b"k"]
    # and: no longer than a snapshot may be behind
    now = 1.01
    await unknown.find(b"k")
    unknown.forget()
    await unknown.find(b"k")
    assert len(asked) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer tk-a-b"},
        {b"authorization": b"bearer tk-a-b"},
        {b"x-api-key": b"tk-a-b"},
        {b"api-key": b"tk-a-b"},
        # what a client knows of another vendor, or of the same key, is no second one
        {b"authorization": b"Bearer sk-other", b"x-api-key": b"tk-a-b"},
        {b"authorization": b"Bearer tk-a-b", b"api-key": b"tk-a-b"},
    ],
)
def test_a_key_is_taken_from_either_header(headers: dict[bytes, bytes]) -> None:
    assert key_hash_of(headers) == key_hash_of({b"x-api-key": b"tk-a-b"})


def test_two_keys_are_refused_whichever_would_count() -> None:
    twice = frozenset({b"authorization"})

    with pytest.raises(InvalidRequest):
        key_hash_of({b"authorization": b"Bearer tk-a-b"}, repeated=twice)
    with pytest.raises(InvalidRequest):
        key_hash_of({b"authorization": b"Bearer tk-a-b", b"x-api-key": b"tk-c-d"})


def test_a_basic_login_is_no_key() -> None:
    with pytest.raises(InvalidApiKey):
        key_hash_of({b"authorization": b"Basic dGstYS1iOg=="})


def client_of(parts: list[bytes], budget: Budget, **headers: str) -> Client:
    """A client whose body comes in these parts."""
    messages = iter([{"type": "http.request", "body": part, "more_body": True} for part in parts])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.request", "body": b"", "more_body": False})

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Client(
        {"headers": raw},
        receive,
        send,
        limits=Limits(body_bytes_max=1000),
        watchdog=Watchdog(deadline_s=5, pulse=PULSE),
        budget=budget,
    )


async def test_bodies_are_counted_over_all_requests_and_given_back() -> None:
    # given
    budget = Budget(1500)
    first, second = client_of([b"x" * 900], budget), client_of([b"x" * 400, b"x" * 300], budget)
    await first.body()
    # when / then
    with pytest.raises(Unavailable):
        await second.body()
    second.release()
    first.release()
    assert budget.taken == 0


async def test_no_tenant_takes_all_bytes_of_a_process() -> None:
    # given
    budget = Budget(1500)
    mine, more, theirs = (client_of([b"x" * 700], budget) for _ in range(3))
    mine.tenant = more.tenant = 1
    theirs.tenant = 2
    await mine.body()
    # when / then
    with pytest.raises(Unavailable, match="Your requests"):
        await more.body()
    assert len(await theirs.body()) == 700
    # and what was given back can be taken again
    mine.release()
    more.release()
    assert len(await client_of([b"x" * 700], budget).body()) == 700


async def test_a_declared_length_is_counted_before_it_is_read() -> None:
    # given
    budget = Budget(1500)
    client = client_of([b"x" * 10], budget, content_length="800")
    # when
    task = asyncio.ensure_future(client.body())
    await asyncio.sleep(0)
    # then
    assert budget.taken == 800
    await task
    client.release()
    assert budget.taken == 0


class LateClock(SystemClock):
    """A machine whose clock differs from Redis' by this much."""

    def __init__(self, late_ms: int) -> None:
        self._late_ms = late_ms

    __slots__ = ("_late_ms",)

    def now_ms(self) -> int:
        return super().now_ms() - self._late_ms


class EmptySource:
    def load(self, now_ms: int) -> Snapshot:
        return Snapshot(loaded_ms=now_ms)

    def find_key(self, key_hash: bytes) -> None:
        return None


class WarmSource(EmptySource):
    def load(self, now_ms: int) -> Snapshot:
        return Snapshot(epochs={1: "epoch-1"}, loaded_ms=now_ms)


@pytest.mark.parametrize(("late_ms", "is_ready"), [(0, True), (400, True), (700, False)])
async def test_a_process_off_redis_clock_is_unready(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, late_ms: int, is_ready: bool
) -> None:
    # given
    redis_client.set(registers.epoch_key(registers.tag_of_shard(1)), "epoch-1")
    plane = Plane(
        redis_url=redis_url,
        limits=Limits(spool_dir=tmp_path),
        source=WarmSource(),
        clock=LateClock(late_ms),
    )
    # when
    await plane.start()
    # then
    try:
        assert (plane.unready() == "") is is_ready
    finally:
        await plane.stop()


class SlowSource(EmptySource):
    """Postgres while somebody commits: a load waits until it may go on."""

    def __init__(self) -> None:
        self.loads = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Event()

    def load(self, now_ms: int) -> Snapshot:
        self.loads += 1
        self.began.set()
        self.go_on.wait(PATIENCE_S)
        return Snapshot(loaded_ms=self.loads)


async def test_a_change_made_while_a_snapshot_loads_is_in_the_next_one(
    redis_client: redis.Redis, redis_url: str
) -> None:
    # given: a load that began before the change was committed
    pipe = RedisPipe(RedisAddress.from_url(redis_url), (), timeout_s=2)
    await pipe.start()
    source = SlowSource()
    snapshots = Snapshots(source, pipe=pipe, clock=SystemClock())
    await snapshots.reload()
    await snapshots.look()
    await asyncio.sleep(FORCED_EVERY_S)
    source.go_on.clear()
    source.began.clear()
    forced = asyncio.ensure_future(snapshots.reload())
    await asyncio.to_thread(source.began.wait, PATIENCE_S)
    redis_client.incr(SNAPSHOT_VERSION_KEY)
    # when
    looking = asyncio.ensure_future(snapshots.look())
    await asyncio.sleep(0.01)
    source.go_on.set()
    await asyncio.gather(forced, looking)
    # then
    assert snapshots.current.loaded_ms == source.loads == 3
    await snapshots.look()
    assert source.loads == 3
    await snapshots.close()
    await pipe.close()


class LaterClock(SystemClock):
    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class SlowAtFirst(EmptySource):
    """Postgres that answers the first look-up when it may, and all others at once."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[bytes] = []

    def find_key(self, key_hash: bytes) -> None:
        self.asked.append(key_hash)
        if len(self.asked) == 1:
            self.go_on.wait(PATIENCE_S)


@pytest.mark.parametrize("still_s", [0.0, 60.0])
async def test_a_process_that_stood_still_during_a_lookup_looks_once_more(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, still_s: float
) -> None:
    # given
    monkeypatch.setattr(snapshot, "FIND_KEY_TIMEOUT_S", 1.0)
    pipe = RedisPipe(RedisAddress.from_url(redis_url), (), timeout_s=2)
    source, clock = SlowAtFirst(), LaterClock()
    snapshots = Snapshots(source, pipe=pipe, clock=clock)
    # when: its clock runs on while it hears nothing
    looking = asyncio.ensure_future(snapshots.find_key(b"k"))
    await asyncio.sleep(0.05)
    clock.ahead_s = still_s
    [found] = await asyncio.gather(looking, return_exceptions=True)
    source.go_on.set()
    # then
    if still_s:
        assert (found, source.asked) == (None, [b"k", b"k"])
    else:
        assert isinstance(found, Unavailable)
        assert source.asked == [b"k"]
    await snapshots.close()


class HungSource(EmptySource):
    """Postgres that does not answer while a lookup is under way, until it may."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked: list[bytes] = []

    def find_key(self, key_hash: bytes) -> None:
        self.asked.append(key_hash)
        self.go_on.wait(PATIENCE_S)


async def test_who_waits_for_a_lookup_that_hangs_hears_503_within_its_time(
    redis_client: redis.Redis, redis_url: str
) -> None:
    # given
    pipe = RedisPipe(RedisAddress.from_url(redis_url), (), timeout_s=2)
    source = HungSource()
    snapshots = Snapshots(source, pipe=pipe, clock=SystemClock())
    began = ran_s()
    # when more of them ask than are looked up at once
    found = await asyncio.gather(
        *(snapshots.find_key(b"%d" % number) for number in range(20)), return_exceptions=True
    )
    # then
    assert ran_s() - began < 2 * FIND_KEY_TIMEOUT_S
    assert {type(each) for each in found} == {Unavailable}
    assert {each.code for each in found if isinstance(each, Unavailable)} == {
        "database_unavailable"
    }
    # and those who have left are not looked up when it answers again
    source.go_on.set()
    assert await snapshots.find_key(b"new") is None
    assert len(source.asked) == 3
    await snapshots.close()
