"""Who else sells: a foreign server attached by its base URL, a machine that joins by one line."""

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.runtime.data_folders import CLONE
from tests.e2e.house import INPUT_PICO, OPENAI, OUTPUT_PICO, Customer, House, question
from tests.e2e.stack import MODEL
from tests.fakes.pool import selling
from tests.fakes.upstream import FakeUpstream

JOIN_TIMEOUT_S = 240.0
NEAR, FAR = f"pool-near/{MODEL}", f"pool-far/{MODEL}"


@pytest.fixture(scope="module")
def customer(house: House) -> Customer:
    return house.customer()


@pytest.fixture(scope="module")
def pools(house: House) -> Iterator[dict[str, FakeUpstream]]:
    """Two servers of somebody else that sell the model of our own workers."""
    running = {name: selling(MODEL) for name in ("near", "far")}
    for name, upstream in running.items():
        upstream.start()
        house.attach(name, upstream.url)
    yield running
    for upstream in running.values():
        upstream.stop()


def _rows(house: House) -> dict[str, dict[str, Any]]:
    return {row["sku"]: row for row in house.board(MODEL)}


def _offer_of(house: House, customer: Customer, **fields: Any) -> str:
    answer = house.ask(OPENAI, question(MODEL, **fields), customer.headers)
    return answer.headers.get("x-tokenhouse-offer", "") if answer.is_success else ""


def test_a_foreign_pool_appears_on_the_board_at_its_price_and_serves(
    house: House, customer: Customer, pools: dict[str, FakeUpstream]
) -> None:
    # given / when
    house.stack.eventually(lambda: {NEAR, FAR} <= set(_rows(house)), timeout_s=20)

    # then
    row = _rows(house)[FAR]
    assert (row["list"]["input_pico"], row["list"]["output_pico"]) == (INPUT_PICO, OUTPUT_PICO)
    page = house.page(f"/models/{MODEL}/")
    assert "Pool near" in page
    assert "Pool far" in page

    # and it can be asked for by name, and is
    only = {"provider": {"only": ["pool-far"]}}
    house.stack.eventually(lambda: _offer_of(house, customer, **only) == FAR)
    assert pools["far"].calls(MODEL)[-1].body["model"] == MODEL


@pytest.fixture
def joined(house: House) -> "Iterator[subprocess.Popen[bytes]]":
    """A worker started by the line that the operator was given, on a port that is free."""
    printed = house.manage("add_worker_key", "another machine", "127.0.0.0/8")
    [line] = [line.strip() for line in printed.splitlines() if "make worker" in line]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = house.stack.root / "joined.log"
    with log.open("wb") as said:
        worker = subprocess.Popen(
            ["env", *shlex.split(line), f"PORT={port}"],
            cwd=CLONE,
            env=house.stack.variables(),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield worker
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(timeout=20)


@pytest.mark.usefixtures("pools")
def test_a_machine_that_joins_by_the_printed_line_is_the_third_seller(
    house: House, customer: Customer, joined: "subprocess.Popen[bytes]"
) -> None:
    # given
    def own() -> list[str]:
        assert joined.poll() is None, (house.stack.root / "joined.log").read_text()[-3000:]
        return [sku for sku in _rows(house) if sku.startswith("in-house/")]

    # when it has measured itself and registered
    [sku] = house.stack.eventually(own, timeout_s=JOIN_TIMEOUT_S)

    # then it is on the board beside the two pools, at its own price and its stated $/hour
    rows = _rows(house)
    assert set(rows) == {NEAR, FAR, sku}
    assert rows[sku]["list"]["output_pico"] > 0
    assert "1.20" in house.page(f"/models/{MODEL}/")

    # and it answers in words, paid at that price
    only = {"provider": {"only": ["in-house"]}, "temperature": 0}
    house.stack.eventually(lambda: _offer_of(house, customer, **only) == sku, timeout_s=20)

    def answered() -> dict[str, Any] | None:
        """The other process may know of the new offer a second later than the first."""
        said: dict[str, Any] = house.ask(OPENAI, question(MODEL, **only), customer.headers).json()
        return said if "choices" in said else None

    answer = house.stack.eventually(answered, timeout_s=20)
    assert answer is not None
    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["usage"]["cost"] > 0

    # and when it dies, those who asked for it first are served by another
    os.killpg(joined.pid, signal.SIGKILL)
    order = {"provider": {"order": ["in-house", "pool-near"]}}
    assert _offer_of(house, customer, **order) == NEAR
