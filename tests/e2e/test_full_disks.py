"""Disks that fill up under load: what was told is booked, and it comes back by itself.

One installation whose logs, spool, Redis and everything else are each on a small disk.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tests.e2e.house import FOX, OPENAI, Customer, House, question
from tests.e2e.stack import Stack
from tests.fakes.pool import selling
from tests.fakes.small_disk import SmallDisk, small_disk
from tests.fakes.upstream import FakeUpstream

GATED = "fox-gated"
PICO = Decimal(10) ** 12
ASKERS = 4
OPEN_STREAMS = 6
SICK_FOR_S = 6.0
BACK_WITHIN_S = 10.0
BOOKED_WITHIN_S = 60.0
MEGABYTES = {"everything": 400, "logs": 4, "spool": 24, "redis": 24}
# The disk that Redis writes to is often the spool's as well.
CASES = [(name,) for name in MEGABYTES] + [("redis", "spool")]


@dataclass
class Ward:
    """The installation, and the disks by what lives on them."""

    house: House
    disks: dict[str, SmallDisk]


@dataclass
class Load:
    """Callers who go on asking; what each was told, by the id of its request."""

    house: House
    customer: Customer
    told_pico: dict[str, int] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)

    def ask(self, model: str = FOX) -> int:
        try:
            answer = self.house.ask(OPENAI, question(model), self.customer.headers)
        except httpx.TransportError:
            return 0
        self.statuses.append(answer.status_code)
        if answer.status_code == 200:
            cost = Decimal(str(answer.json()["usage"]["cost"]))
            self.told_pico[answer.headers["x-request-id"]] = int(cost * PICO)
        return answer.status_code

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        over = threading.Event()

        def go_on() -> None:
            while not over.is_set():
                self.ask()
                over.wait(0.05)

        askers = [threading.Thread(target=go_on) for _ in range(ASKERS)]
        for asker in askers:
            asker.start()
        try:
            yield
        finally:
            over.set()
            for asker in askers:
                asker.join()


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
        running.start()
        opened = House(running, upstream)
        opened.attach("story", upstream.url)
        key = running.api_keys[0]
        running.eventually(lambda: running.serves(key=key, model=FOX), timeout_s=30)
        yield Ward(opened, disks)


def booked_pico(load: Load) -> dict[str, int]:
    rows = load.house.stack.sql(
        "SELECT request_id, sum(tenant_cost_pico) FROM billing_usageevent "
        "WHERE tenant_id = %s GROUP BY request_id",
        load.customer.tenant,
    )
    return {str(request_id): int(pico) for request_id, pico in rows}


@pytest.mark.parametrize("full", CASES, ids=" and ".join)
def test_a_disk_that_fills_up_costs_nobody_anything(ward: Ward, full: tuple[str, ...]) -> None:
    # given: callers, and requests that are open when it happens
    house, upstream = ward.house, ward.house.upstream
    load = Load(house, house.customer())
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
        time.sleep(SICK_FOR_S / 2)
        upstream.gate.set()
        time.sleep(SICK_FOR_S / 2)
        for name in full:
            ward.disks[name].free()
        # then: it is back by itself
        cured_at = time.monotonic()
        house.stack.eventually(lambda: load.ask() == 200, timeout_s=BACK_WITHIN_S)
        assert time.monotonic() - cured_at < BACK_WITHIN_S
        time.sleep(1.0)
    for each in slow:
        each.join()
    assert set(load.statuses) <= {200, 503}
    assert ("redis" in full) <= (503 in load.statuses)
    assert len(load.told_pico) > OPEN_STREAMS
    # and: each that was served is booked at what was told, and nothing else is
    house.stack.eventually(house.is_reachable, timeout_s=BOOKED_WITHIN_S)
    house.stack.eventually(
        lambda: booked_pico(load).keys() >= load.told_pico.keys(), timeout_s=BOOKED_WITHIN_S
    )
    assert booked_pico(load) == load.told_pico
    # and nobody's offer was closed, and nobody blamed
    assert {outcome for outcome, _, _ in house.posted(load.customer)} == {"ok"}
    assert load.ask() == 200
    assert house.broken_sums() == []
