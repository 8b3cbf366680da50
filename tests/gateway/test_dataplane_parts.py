"""The small parts of the data plane: request ids, watchdog, unknown keys, spool."""

import asyncio
import os
import resource
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis

from billing import registers
from billing.holds import SpendScope
from gateway.dataplane import request_id
from gateway.dataplane.auth import UnknownKeys, key_hash_of
from gateway.dataplane.budget import Budget
from gateway.dataplane.client import Client
from gateway.dataplane.limits import Limits
from gateway.dataplane.plane import Plane
from gateway.dataplane.redis_pipe import RedisAddress, RedisPipe
from gateway.dataplane.snapshot import FORCED_EVERY_S, VERSION_KEY, Snapshot, Snapshots
from gateway.dataplane.spool import RecordRefused, SettleRecord, Spool, SpoolFull
from gateway.dataplane.stopwatch import SystemClock
from gateway.dataplane.watchdog import ClientLeft, DeadlinePassed, Silent, Watchdog
from gateway.errors import InvalidApiKey, Unavailable

NOON_MS = 1_773_144_000_000


def test_a_request_id_is_a_uuid7_of_its_time() -> None:
    # given / when
    made = request_id.new_request_id(NOON_MS)
    # then
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
    assert request_id.made_at_ms(made) == NOON_MS


def test_request_ids_of_one_millisecond_differ() -> None:
    assert len({request_id.new_request_id(NOON_MS) for _ in range(1000)}) == 1000


async def test_a_wait_returns_what_it_waited_for() -> None:
    # given
    watchdog = Watchdog(deadline_s=5)
    # when / then
    assert await watchdog.wait(asyncio.sleep(0, "it"), limit_s=1, reason=Silent) == "it"
    watchdog.close()


async def test_a_limit_ends_a_wait_with_its_reason() -> None:
    # given
    watchdog = Watchdog(deadline_s=5)
    # when / then
    with pytest.raises(Silent):
        await watchdog.wait(asyncio.sleep(5), limit_s=0.02, reason=Silent)
    # and: the task goes on as if nothing had happened
    assert await watchdog.wait(asyncio.sleep(0, "it"), limit_s=1, reason=Silent) == "it"
    watchdog.close()


async def test_the_deadline_comes_before_a_longer_limit() -> None:
    # given
    watchdog = Watchdog(deadline_s=0.03)
    # when / then
    with pytest.raises(DeadlinePassed):
        await watchdog.wait(asyncio.sleep(5), limit_s=5, reason=Silent)
    watchdog.close()


async def test_a_client_that_leaves_ends_the_wait() -> None:
    # given
    watchdog = Watchdog(deadline_s=5)
    asyncio.get_running_loop().call_later(0.02, watchdog.note_client_left)
    # when / then
    with pytest.raises(ClientLeft):
        await watchdog.wait(asyncio.sleep(5), limit_s=5, reason=Silent)
    with pytest.raises(ClientLeft):
        await watchdog.wait(asyncio.sleep(5), limit_s=5, reason=Silent)
    watchdog.close()


async def test_a_client_that_leaves_does_not_end_a_wait_it_has_no_part_in() -> None:
    # given
    watchdog = Watchdog(deadline_s=5)
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
        watchdog = Watchdog(deadline_s=5)
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


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer tk-a-b"},
        {b"authorization": b"bearer tk-a-b"},
        {b"x-api-key": b"tk-a-b"},
    ],
)
def test_a_key_is_taken_from_either_header(headers: dict[bytes, bytes]) -> None:
    assert key_hash_of(headers) == key_hash_of({b"x-api-key": b"tk-a-b"})


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
        watchdog=Watchdog(deadline_s=5),
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


@pytest.mark.parametrize(("late_ms", "is_ready"), [(0, True), (400, True), (700, False)])
async def test_a_process_off_redis_clock_is_unready(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, late_ms: int, is_ready: bool
) -> None:
    # given
    plane = Plane(
        redis_url=redis_url,
        limits=Limits(spool_dir=tmp_path),
        source=EmptySource(),
        clock=LateClock(late_ms),
    )
    # when
    await plane.start()
    # then
    try:
        assert (plane.unready() == "") is is_ready
    finally:
        await plane.stop()


def record(number: int) -> SettleRecord:
    return SettleRecord(
        tenant=1,
        key=2,
        request_id=f"r{number}",
        now_ms=NOON_MS,
        events=[(b'{"a":1}', number)],
        spend=(SpendScope(kind="key", id="2", window="day", limit_nano=5),),
    )


def left_in(folder: Path) -> int:
    return len(list(folder.glob("*.jsonl")))


async def test_spooled_records_are_replayed_in_order_and_then_gone(tmp_path: Path) -> None:
    # given
    spool = Spool(tmp_path)
    spool.open()
    for number in range(3):
        await spool.append(record(number))
    taken: list[SettleRecord] = []

    async def take(one: SettleRecord) -> bool:
        taken.append(one)
        return True

    # when
    count = await spool.replay(take)
    # then
    assert (count, taken) == (3, [record(0), record(1), record(2)])
    assert spool.empty
    assert await spool.replay(take) == 0
    spool.close()


async def test_a_record_that_is_not_taken_stays(tmp_path: Path) -> None:
    # given
    spool = Spool(tmp_path)
    spool.open()
    await spool.append(record(1))

    async def refuse(one: SettleRecord) -> bool:
        return False

    # when
    await spool.replay(refuse)
    # then
    assert not spool.empty
    spool.close()
    assert left_in(tmp_path) == 1


async def test_a_full_spool_says_so(tmp_path: Path) -> None:
    # given
    spool = Spool(tmp_path, bytes_max=400)
    spool.open()
    await spool.append(record(1))
    # when / then
    await spool.append(record(2))
    with pytest.raises(SpoolFull):
        await spool.append(record(3))
    spool.close()


async def test_the_spool_of_a_dead_process_is_taken_over_without_its_torn_end(
    tmp_path: Path,
) -> None:
    # given: a process that died in the middle of a write
    script = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from gateway.dataplane.spool import SettleRecord, Spool\n"
        "async def main():\n"
        "    spool = Spool(Path(sys.argv[1])); spool.open()\n"
        "    await spool.append(SettleRecord(tenant=1, key=2, request_id='r', now_ms=3))\n"
        '    spool._write(b\'{"tenant": 1, "re\')\n'
        "    os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path))
    assert await dying.wait() == 9
    spool = Spool(tmp_path)
    spool.open()
    taken: list[str] = []

    async def take(one: SettleRecord) -> bool:
        taken.append(one.request_id)
        return True

    # when
    await spool.replay(take)
    # then
    assert taken == ["r"]
    spool.close()
    assert left_in(tmp_path) == 0


async def test_the_spool_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    # given
    theirs, ours = Spool(tmp_path), Spool(tmp_path)
    theirs.open()
    ours.open()
    await theirs.append(record(1))

    async def take(one: SettleRecord) -> bool:
        raise AssertionError(one)

    # when / then
    assert await ours.replay(take) == 0
    theirs.close()
    ours.close()


async def test_a_record_that_is_refused_for_good_does_not_keep_back_the_others(
    tmp_path: Path,
) -> None:
    # given
    spool = Spool(tmp_path)
    spool.open()
    for number in range(3):
        await spool.append(record(number))
    taken: list[str] = []

    async def refuse_the_first(one: SettleRecord) -> bool:
        if one.request_id == "r0":
            raise RecordRefused
        taken.append(one.request_id)
        return True

    # when
    await spool.replay(refuse_the_first)
    # then: it is kept where a person finds it
    assert taken == ["r1", "r2"]
    assert spool.empty
    assert b'"r0"' in (tmp_path / "refused.txt").read_bytes()
    spool.close()


async def test_a_disk_that_fills_up_tears_no_record(tmp_path: Path) -> None:
    # given: room for one record and a half
    spool = Spool(tmp_path)
    spool.open()
    await spool.append(record(1))
    (path,) = list(os.scandir(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size * 3 // 2, hard))
    # when
    try:
        with pytest.raises(OSError, match="File too large|no room"):
            await spool.append(record(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await spool.append(record(3))
    # then
    taken: list[str] = []

    async def take(one: SettleRecord) -> bool:
        taken.append(one.request_id)
        return True

    assert await spool.replay(take) == 2
    assert taken == ["r1", "r3"]
    assert spool.empty
    spool.close()


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
        self.go_on.wait(5)
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
    await asyncio.to_thread(source.began.wait, 5)
    redis_client.incr(VERSION_KEY)
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


class WarmSource(EmptySource):
    def load(self, now_ms: int) -> Snapshot:
        return Snapshot(epochs={1: "epoch-1"}, loaded_ms=now_ms)


async def test_a_settle_that_redis_can_never_take_is_set_aside_and_the_rest_is_booked(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    # given: a charge beyond every register, and one that is none, in the spool of a dead process
    tag = registers.shard_tag(1)
    redis_client.set(registers.epoch_key(tag), "epoch-1")
    before = Spool(tmp_path)
    before.open()
    for number in (2**53, 7):
        request_id_text = request_id.new_request_id(NOON_MS)
        events = [(b'{"attempt":1}', number)]
        await before.append(
            SettleRecord(tenant=1, key=2, request_id=request_id_text, now_ms=NOON_MS, events=events)
        )
    before.close()
    plane = Plane(
        redis_url=redis_url,
        limits=Limits(spool_dir=tmp_path),
        source=WarmSource(),
        clock=SystemClock(),
    )
    # when: it begins with what others left
    await plane.start()
    for _ in range(500):
        if redis_client.xlen(registers.stream_key(tag)) and left_in(tmp_path) == 1:
            break
        await asyncio.sleep(0.01)
    await plane.stop()
    # then
    ((_, entry),) = redis_client.xrange(registers.stream_key(tag))
    assert int(entry[b"c"]) + int(entry[b"o"]) == 7
    assert left_in(tmp_path) == 0
    assert (tmp_path / "refused.txt").read_bytes().count(b"\n") == 1
