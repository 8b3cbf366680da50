"""A cap is a cap: two hundred at once on credit for fifty, then one by one to the last pico."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from billing.money import PICO_PER_NANO
from tests.e2e.house import (
    CACHED_PICO,
    INPUT_PICO,
    OPENAI,
    OUTPUT_PICO,
    Customer,
    House,
    question,
)
from tests.fakes.upstream import CACHED_TOKENS, INPUT_TOKENS, TOKENS
from tests.patience import PATIENCE_S

CALLERS = 200
HOLDS = 50
CLAIMED_TOKENS = 100_000
COST_PICO = (
    (INPUT_TOKENS - CACHED_TOKENS) * INPUT_PICO
    + CACHED_TOKENS * CACHED_PICO
    + len(TOKENS) * OUTPUT_PICO
)
GATED = json.dumps(question("fox-gated")).encode()


@pytest.fixture
def gate(house: House) -> Iterator[None]:
    """Shut while the test runs, and open for whoever still waits after it."""
    house.upstream.gate.clear()
    yield
    house.upstream.gate.set()


@pytest.mark.usefixtures("gate")
def test_credit_for_fifty_admits_fifty_of_two_hundred_and_is_never_passed(house: House) -> None:
    # given credit for exactly fifty holds of this request
    [hold_nano] = {_needed_nano(house, made) for made in [house.customer(credit_pico=0)]}
    customer = house.customer(credit_pico=HOLDS * hold_nano * PICO_PER_NANO)

    # when two hundred ask at once, and the upstream answers nobody before all are decided
    answers = asyncio.run(_all_at_once(house, customer, hold_nano))

    # then fifty were served and the others were told which scope had nothing left
    assert [answer.status_code for answer in answers].count(200) == HOLDS
    refused = [answer.json()["error"] for answer in answers if answer.status_code != 200]
    assert len(refused) == CALLERS - HOLDS
    assert {(e["code"], e["metadata"]["scope"], e["metadata"]["left_usd"]) for e in refused} == {
        ("over_budget", "tenant", "0")
    }
    assert len(house.upstream.calls("fox-gated")) == HOLDS
    _check_all_is_posted(house, customer, events=HOLDS)
    assert house.spent_pico(customer) == HOLDS * COST_PICO

    # and when the rest is spent one by one
    served = HOLDS + _spend_one_by_one(house, customer, hold_nano)

    # then no request that could have passed the credit was let in
    left_pico = house.register(customer)["credit"] * PICO_PER_NANO - served * COST_PICO
    assert 0 <= left_pico < hold_nano * PICO_PER_NANO
    _check_all_is_posted(house, customer, events=served)

    # and when a provider that claims far too much uses up what is left
    greedy = _spend_with_a_greedy_provider(house, customer)

    # then not a pico-dollar is spent beyond it, and nobody owes what was claimed
    _check_all_is_posted(house, customer, events=served + greedy)
    assert 0 <= _left_pico(house, customer) < _least_hold_pico(house, customer)
    assert _claims(house, customer) == [(CLAIMED_TOKENS, 0, 0)] * greedy


async def _all_at_once(house: House, customer: Customer, hold_nano: int) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=2 * CALLERS)
    async with httpx.AsyncClient(limits=limits, timeout=PATIENCE_S, trust_env=False) as client:

        def asked() -> "asyncio.Task[httpx.Response]":
            url = f"{house.stack.api}{OPENAI}"
            return asyncio.create_task(client.post(url, content=GATED, headers=customer.headers))

        running = [asked() for _ in range(CALLERS)]
        await _decided(house, running)
        register = house.register(customer)
        assert (register["spent"], register["held"]) == (0, HOLDS * hold_nano)
        assert house.open_requests(customer) == HOLDS

        # Refusals, now alone, change no register.
        before = house.books(customer)
        late = await asyncio.gather(*(asked() for _ in range(HOLDS)))
        assert {answer.status_code for answer in late} == {402}
        after = house.books(customer)
        assert after.but_leases == before.but_forgotten(after).but_leases
        house.upstream.gate.set()
        return await asyncio.gather(*running)


async def _decided(house: House, running: "list[asyncio.Task[httpx.Response]]") -> None:
    """Until everyone was refused or has reached the upstream."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            refused = sum(task.done() for task in running)
            if refused + len(house.upstream.calls("fox-gated")) >= CALLERS:
                return
            await asyncio.sleep(0.05)


def _spend_one_by_one(house: House, customer: Customer, hold_nano: int) -> int:
    served = 0
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        while True:
            free_nano = _free_nano(house, customer)
            url = f"{house.stack.api}{OPENAI}"
            answer = client.post(url, content=GATED, headers=customer.headers)
            if answer.status_code == 402:
                assert free_nano < hold_nano
                return served
            assert answer.status_code == 200, answer.text
            assert free_nano >= hold_nano
            served += 1
            assert _left_pico(house, customer) >= 0


def _spend_with_a_greedy_provider(house: House, customer: Customer) -> int:
    """The largest request that still fits, again and again, until none does."""
    served = 0
    for max_tokens in range(64, 0, -1):
        body = question("fox-greedy", stream=True, max_tokens=max_tokens)
        while house.ask(OPENAI, body, customer.headers).status_code == 200:
            served += 1
            assert _left_pico(house, customer) >= 0
    assert served > 0
    return served


def _claims(house: House, customer: Customer) -> list[tuple[int, int, int]]:
    """What each waiting claim says, and what of it is the seller's or was charged to the house."""
    return house.stack.sql(
        "SELECT claim.claimed_output_tokens, event.supplier_cost_pico, event.overage_pico "
        "FROM billing_claim claim JOIN billing_usageevent event USING (request_id, attempt) "
        "WHERE claim.tenant_id = %s AND claim.decided_at IS NULL",
        customer.tenant,
    )


def _needed_nano(house: House, customer: Customer) -> int:
    """The hold of the request, as a refusal names it."""
    answer = house.ask(OPENAI, GATED, customer.headers)
    assert answer.status_code == 402
    return _nano(answer.json()["error"]["metadata"]["needed_usd"])


def _least_hold_pico(house: House, customer: Customer) -> int:
    body = question("fox-greedy", stream=True, max_tokens=1)
    error: dict[str, Any] = house.ask(OPENAI, body, customer.headers).json()["error"]
    return _nano(error["metadata"]["needed_usd"]) * PICO_PER_NANO


def _nano(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole + fraction.ljust(9, "0"))


def _free_nano(house: House, customer: Customer) -> int:
    register = house.register(customer)
    return register["credit"] - register["spent"] - register["held"]


def _left_pico(house: House, customer: Customer) -> int:
    return house.register(customer)["credit"] * PICO_PER_NANO - house.spent_pico(customer)


def _check_all_is_posted(house: House, customer: Customer, *, events: int) -> None:
    """Events in Postgres, entries of the ledger and the register in Redis agree to the pico."""
    house.until_booked(customer, events=events)
    costs = sum(cost for _, cost, _ in house.posted(customer))
    assert house.spent_pico(customer) == house.debited_pico(customer) == costs
    assert house.register(customer)["held"] == 0
    assert house.open_requests(customer) == 0
