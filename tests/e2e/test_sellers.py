"""Who else sells: a foreign server attached by its base URL, a machine that joins by one line."""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.runtime.data_folders import CLONE
from tests.e2e.house import INPUT_PICO, OPENAI, OUTPUT_PICO, Customer, House, question
from tests.e2e.stack import MODEL
from tests.fakes.pool import selling
from tests.fakes.upstream import FakeUpstream
from tests.patience import PATIENCE_S
from tests.ports import free_port

JOIN_TIMEOUT_S = 600.0
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


def _board_of(house: House, *skus: str) -> dict[str, dict[str, Any]] | None:
    """The board's rows by sku, where it has all of these."""
    rows = {row["sku"]: row for row in house.board(MODEL)}
    return rows if set(skus) <= set(rows) else None


def _answer(house: House, customer: Customer, **fields: Any) -> httpx.Response:
    answer = house.ask(OPENAI, question(MODEL, **fields), customer.headers)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_foreign_pool_appears_on_the_board_at_its_price_and_serves(
    house: House, customer: Customer, pools: dict[str, FakeUpstream]
) -> None:
    # when they are attached
    rows = _board_of(house, NEAR, FAR)

    # then
    assert rows is not None
    row = rows[FAR]
    assert (row["list"]["input_pico"], row["list"]["output_pico"]) == (INPUT_PICO, OUTPUT_PICO)
    page = house.page(f"/models/{MODEL}/")
    assert "Pool near" in page
    assert "Pool far" in page

    # and it can be asked for by name, and is
    answer = _answer(house, customer, provider={"only": ["pool-far"]})
    assert answer.headers["x-tokenhouse-offer"] == FAR
    assert pools["far"].calls(MODEL)[-1].body["model"] == MODEL


@pytest.fixture
def joined(house: House) -> "Iterator[subprocess.Popen[bytes]]":
    """A worker started by the line that the operator was given."""
    printed = house.manage("add_worker_key", "another machine", "127.0.0.0/8")
    [line] = [line.strip() for line in printed.splitlines() if "make worker" in line]
    log = house.stack.root / "joined.log"
    with log.open("wb") as said:
        worker = subprocess.Popen(
            ["env", *shlex.split(line), f"PORT={free_port()}"],
            cwd=CLONE,
            env=house.stack.variables(),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield worker
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(timeout=PATIENCE_S)


@pytest.mark.usefixtures("pools")
def test_a_machine_that_joins_by_the_printed_line_is_the_third_seller(
    house: House, customer: Customer, joined: "subprocess.Popen[bytes]"
) -> None:
    # given
    def routable() -> list[str]:
        assert joined.poll() is None, (house.stack.root / "joined.log").read_text()[-3000:]
        return [
            row["sku"]
            for row in house.board(MODEL)
            if row["sku"].startswith("in-house/") and row["routable"]
        ]

    # when it has measured itself and registered
    [sku] = house.stack.eventually(routable, timeout_s=JOIN_TIMEOUT_S)
    house.until_known()

    # then it is on the board beside the two pools, at its own price and its stated $/hour
    rows = _board_of(house, sku)
    assert rows is not None
    assert set(rows) == {NEAR, FAR, sku}
    assert rows[sku]["list"]["output_pico"] > 0
    assert "1.20" in house.page(f"/models/{MODEL}/")

    # and it answers in words, paid at that price
    answer = _answer(house, customer, provider={"only": ["in-house"]}, temperature=0)
    assert answer.headers["x-tokenhouse-offer"] == sku
    said = answer.json()
    assert said["choices"][0]["message"]["content"].strip()
    assert said["usage"]["cost"] > 0

    # and when it dies, those who asked for it first are served by another
    os.killpg(joined.pid, signal.SIGKILL)
    answer = _answer(house, customer, provider={"order": ["in-house", "pool-near"]})
    assert answer.headers["x-tokenhouse-offer"] == NEAR
