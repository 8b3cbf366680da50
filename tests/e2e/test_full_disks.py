"""Disks that fill up under load: what was told is booked, and it comes back by itself.

One installation whose logs, spool, Redis and everything else are each on a small disk.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.house import FOX, House
from tests.e2e.load import Load
from tests.e2e.stack import Stack
from tests.fakes.pool import selling
from tests.fakes.small_disk import SmallDisk, small_disk
from tests.fakes.upstream import FakeUpstream

GATED = "fox-gated"
ASKERS = 4
OPEN_STREAMS = 6
SICK_FOR_S = 6.0
MEGABYTES = {"everything": 400, "logs": 4, "spool": 24, "redis": 24}
# The disk that Redis writes to is often the spool's as well.
CASES = [(name,) for name in MEGABYTES] + [("redis", "spool")]


@dataclass
class Ward:
    """The installation, and the disks by what lives on them."""

    house: House
    disks: dict[str, SmallDisk]


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    fake = selling(FOX, GATED)
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def ward(upstream: FakeUpstream) -> Iterator[Ward]:
    root = Path(tempfile.mkdtemp(prefix="tokenhouse-disks-"))
    with contextlib.ExitStack() as mounts:
        disks = {}
        for name, megabytes in MEGABYTES.items():
            folder = root if name == "everything" else root / name
            disks[name] = mounts.enter_context(small_disk(folder, megabytes=megabytes))
        running = Stack(root=root, TOKENHOUSE_WORKERS="0", TOKENHOUSE_DATAPLANE_PROCESSES="2")
        mounts.callback(running.close)
        opened = House(running, upstream)
        opened.open()
        yield Ward(opened, disks)


@pytest.mark.parametrize("full", CASES, ids=" and ".join)
def test_a_disk_that_fills_up_costs_nobody_anything(ward: Ward, full: tuple[str, ...]) -> None:
    # given: callers, and requests that are open when it happens
    house, upstream = ward.house, ward.house.upstream
    load = Load(house, house.customer(), models=(FOX,) * ASKERS)
    upstream.gate.clear()
    before = len(upstream.calls(GATED))
    slow = [threading.Thread(target=load.ask, args=(GATED,)) for _ in range(OPEN_STREAMS)]
    for each in slow:
        each.start()
    house.stack.eventually(lambda: len(upstream.calls(GATED)) == before + OPEN_STREAMS)
    # when
    with load.going_on():
        time.sleep(1.0)
        for name in full:
            ward.disks[name].fill()
        if "redis" in full:
            house.stack.eventually(lambda: 503 in load.statuses)
        time.sleep(SICK_FOR_S / 2)
        upstream.gate.set()
        time.sleep(SICK_FOR_S / 2)
        for name in full:
            ward.disks[name].free()
        # then: it is back by itself
        load.is_back()
        time.sleep(1.0)
    for each in slow:
        each.join()
    assert set(load.statuses) <= {200, 503}
    assert len(load.told_pico) > OPEN_STREAMS
    load.is_booked_as_told()
    # and nobody's offer was closed, and nobody blamed
    assert {outcome for outcome, _, _ in house.posted(load.customer)} == {"ok"}
    assert load.ask() == 200
