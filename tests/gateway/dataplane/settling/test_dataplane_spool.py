"""The spool: settles that Redis did not take are on disk, whole, and replayed once by somebody."""

import asyncio
import os
import resource
import sys
from pathlib import Path

import pytest
import redis

from billing import registers
from billing.holding.holds import SpendScope
from billing.holding.settle_records import REFUSED_STREAM, SettleRecord, decode, encode
from gateway.clocks.stopwatch import SystemClock
from gateway.dataplane.inbound import request_id
from gateway.dataplane.limits import Limits
from gateway.dataplane.plane import Plane
from gateway.dataplane.settling.spool import Spool, SpoolFull, Verdict
from gateway.dataplane.snapshots.snapshot import Snapshot

NOON_MS = 1_773_144_000_000


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

    async def take(one: SettleRecord) -> Verdict:
        taken.append(one)
        return Verdict.TAKEN

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

    async def refuse(one: SettleRecord) -> Verdict:
        return Verdict.NOBODY

    # when
    await spool.replay(refuse)
    # then
    assert not spool.empty
    spool.close()
    assert left_in(tmp_path) == 1


async def test_a_full_spool_says_so(tmp_path: Path) -> None:
    # given
    spool = Spool(tmp_path, bytes_max=600)
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
        "from billing.holding.settle_records import SettleRecord\n"
        "from gateway.dataplane.settling.spool import Spool\n"
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

    async def take(one: SettleRecord) -> Verdict:
        taken.append(one.request_id)
        return Verdict.TAKEN

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

    async def take(one: SettleRecord) -> Verdict:
        raise AssertionError(one)

    # when / then
    assert await ours.replay(take) == 0
    theirs.close()
    ours.close()


async def test_a_record_that_must_wait_does_not_keep_back_the_others(tmp_path: Path) -> None:
    # given
    spool = Spool(tmp_path)
    spool.open()
    for number in range(3):
        await spool.append(record(number))
    asked: list[str] = []
    is_cold = True

    async def refuse_the_first(one: SettleRecord) -> Verdict:
        asked.append(one.request_id)
        return Verdict.LATER if one.request_id == "r0" and is_cold else Verdict.TAKEN

    # when
    assert await spool.replay(refuse_the_first) == 2
    # then: it stays alone, and what was taken is not told again
    assert spool.waiting == 1
    is_cold = False
    assert await spool.replay(refuse_the_first) == 1
    assert asked == ["r0", "r1", "r2", "r0"]
    assert spool.empty
    spool.close()


async def test_what_an_earlier_version_gave_up_on_is_told_again(tmp_path: Path) -> None:
    # given
    (tmp_path / "refused.txt").write_bytes(encode(record(1)) + b"\n")
    spool = Spool(tmp_path)
    spool.open()
    taken: list[SettleRecord] = []

    async def take(one: SettleRecord) -> Verdict:
        taken.append(one)
        return Verdict.TAKEN

    # when
    assert await spool.replay(take) == 1
    # then
    assert taken == [record(1)]
    spool.close()
    assert os.listdir(tmp_path) == []


async def test_a_disk_that_fills_up_tears_no_record(tmp_path: Path) -> None:
    # given: room for one record and a half
    spool = Spool(tmp_path, reserve_bytes=0)
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

    async def take(one: SettleRecord) -> Verdict:
        taken.append(one.request_id)
        return Verdict.TAKEN

    assert await spool.replay(take) == 2
    assert taken == ["r1", "r3"]
    assert spool.empty
    spool.close()


class WarmSource:
    def load(self, now_ms: int) -> Snapshot:
        return Snapshot(epochs={1: "epoch-1"}, loaded_ms=now_ms)

    def find_key(self, key_hash: bytes) -> None:
        return None


async def test_a_settle_that_redis_can_never_take_is_set_aside_and_the_rest_is_booked(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    # given: a charge beyond every register, and one that is none, in the spool of a dead process
    tag = registers.shard_tag(1)
    redis_client.set(registers.epoch_key(tag), "epoch-1")
    before = Spool(tmp_path)
    before.open()
    now_ms = SystemClock().now_ms()
    for number in (2**53, 7):
        request_id_text = request_id.new_request_id(now_ms)
        events = [(b'{"attempt":1}', number)]
        await before.append(
            SettleRecord(tenant=1, key=2, request_id=request_id_text, now_ms=now_ms, events=events)
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
    ((_, fields),) = redis_client.xrange(REFUSED_STREAM)
    assert decode(fields[b"r"]).events == [(b'{"attempt":1}', 2**53)]
    assert b"not a whole number below 2^52: charge" in fields[b"why"]
