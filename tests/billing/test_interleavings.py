"""Many at once: what no order of events may break."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from billing import registers
from billing.fault_isolation import SomeFailed
from billing.holding import expiry, holds
from billing.holding.holds import Placed, RateScope, Refused, SpendScope
from tests.billing import desk as desks
from tests.billing.desk import Desk
from tests.billing.open_books import Books

HOLD_NANO = 1_000
ROOM_FOR = 50
CALLERS = 200


def at_once(desk: Desk, client_url: dict[str, object]) -> list[Placed | Refused]:
    """200 calls from 20 connections."""

    def place(_: int) -> Placed | Refused:
        with redis.Redis(**client_url) as client:  # type: ignore[arg-type]
            mine = Desk(
                client=client,
                tenant=desk.tenant,
                epoch=desk.epoch,
                spend=desk.spend,
                rates=desk.rates,
            )
            return mine.place(hold_nano=HOLD_NANO)[1]

    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(place, range(CALLERS)))


def connection_of(desk: Desk) -> dict[str, object]:
    options = desk.client.get_connection_kwargs()
    return {"unix_socket_path": options["path"], "db": options.get("db", 0)}


def test_of_200_at_once_with_credit_for_50_exactly_50_are_admitted(desk: Desk) -> None:
    # given
    desk.set_credit(ROOM_FOR * HOLD_NANO, version=2)
    desk.spend = (SpendScope("key", "5", "day", 10**9),)
    # when
    outcomes = at_once(desk, connection_of(desk))
    # then
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert len(outcomes) - len(refused) == ROOM_FOR
    assert {outcome.code for outcome in refused} == {"over_budget"}
    assert desk.tenant_register() == {"credit": 50_000, "spent": 0, "held": 50_000}
    assert desk.spend_register(desk.spend[0]) == (0, 50_000)


def test_of_200_at_once_with_50_slots_exactly_50_are_admitted(desk: Desk) -> None:
    # given
    desk.set_credit(10**9, version=2)
    desk.rates = (RateScope("key", "5", concurrency=ROOM_FOR),)
    # when
    outcomes = at_once(desk, connection_of(desk))
    # then
    assert sum(isinstance(outcome, Placed) for outcome in outcomes) == ROOM_FOR
    assert desk.tenant_register()["held"] == ROOM_FOR * HOLD_NANO


@pytest.mark.parametrize("overdraft_nano", [0, 7_000])
def test_500_at_once_spend_at_most_the_limit_and_the_overdraft(
    desk: Desk, overdraft_nano: int
) -> None:
    # given: every request costs three times what it holds, where it may
    desk.set_credit(ROOM_FOR * HOLD_NANO, version=2)
    cap = SpendScope("key", "5", "day", 40 * HOLD_NANO)
    client_url = connection_of(desk)

    def one(_: int) -> None:
        with redis.Redis(**client_url) as client:  # type: ignore[arg-type]
            mine = Desk(client=client, tenant=desk.tenant, epoch=desk.epoch, spend=(cap,))
            request_id, outcome = mine.place(
                hold_nano=HOLD_NANO,
                ceiling_nano=3 * HOLD_NANO if overdraft_nano else HOLD_NANO,
                overdraft=overdraft_nano,
            )
            if isinstance(outcome, Placed):
                mine.settle(request_id, 3 * HOLD_NANO)

    # when
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(one, range(500)))

    # then: nothing is held, and the cap is used up to its last whole hold, and never passed by more
    desk.spend = (cap,)
    spent, held = desk.spend_register(cap)
    assert held == 0
    assert cap.limit_nano - HOLD_NANO < spent <= cap.limit_nano + overdraft_nano
    assert desk.tenant_register()["spent"] == spent
    charged = [int(entry["c"]) for entry in desk.entries()]
    house = [int(entry["o"]) for entry in desk.entries()]
    assert sum(charged) == spent
    assert all(paid + rest == 3 * HOLD_NANO for paid, rest in zip(charged, house, strict=True))


def test_credit_is_spent_to_the_end_and_never_past_it(desk: Desk) -> None:
    # given: every request settles at two thirds of its hold
    desk.set_credit(ROOM_FOR * HOLD_NANO, version=2)
    served = 0
    # when
    while True:
        request_id, outcome = desk.place(hold_nano=HOLD_NANO)
        if isinstance(outcome, Refused):
            break
        desk.settle(request_id, 667)
        served += 1
    # then: 74 × 667 = 49,358 leave 642, which hold no further request
    assert served == 74
    assert desk.tenant_register() == {"credit": 50_000, "spent": 49_358, "held": 0}
    assert outcome.left_nano == 642


def test_a_late_settle_while_another_holds_the_rest_never_passes_the_credit(
    books: Books,
) -> None:
    # given: $1 of credit; one request expired, another holds all that is left
    first = books.desk.placed(hold_nano=1_000_000)
    books.desk.now_ms += holds.LEASE_MS
    books.desk.expire(first)
    second = books.desk.placed(hold_nano=999_900_000)
    # when
    books.settle(first)
    books.drain()
    # then: 100,000 of 280,000 nano-dollars were free
    late = next(event for event in books.events() if event.attempt == 0)
    assert (late.tenant_cost_pico, late.overage_pico) == (100_000_000, 180_000_000)
    assert books.balance().left_pico == 0
    assert books.check() == {}
    books.desk.void(second)
    assert books.check() == {}


def test_the_sweep_expires_what_is_due_and_nothing_else(books: Books) -> None:
    # given
    silent = books.desk.placed(hold_nano=1_000)
    books.desk.now_ms += holds.LEASE_MS - 1
    books.desk.placed(hold_nano=2_000)
    books.desk.now_ms += 1
    # when
    expired = expiry.expire_holds(books.desk.client, now_ms=books.desk.now_ms)
    books.drain()
    # then
    assert expired == 1
    assert [(str(e.request_id), e.attempt, e.outcome) for e in books.events()] == [
        (silent, -1, "unknown")
    ]
    assert books.balance().held_pico == 2_000_000
    assert books.check() == {}


def test_a_hold_that_cannot_expire_does_not_keep_the_others(books: Books) -> None:
    # given: a hold whose record was damaged, before one that was not
    damaged = books.desk.placed(hold_nano=1_000)
    books.desk.now_ms += 1
    books.desk.placed(hold_nano=2_000)
    record = registers.hold_key(books.desk.tag, damaged)
    books.desk.client.hset(record, "event", "no event")
    # when
    books.desk.now_ms += holds.LEASE_MS
    with pytest.raises(SomeFailed, match=f"hold {damaged}: ResponseError"):
        expiry.expire_holds(books.desk.client, now_ms=books.desk.now_ms)
    # then
    assert books.balance().held_pico == 1_000_000


def test_a_day_that_ends_between_hold_and_settle_stays_the_day_of_the_hold(
    books: Books,
) -> None:
    # given
    books.desk.now_ms = desks.NOON_MS + 12 * 3_600_000 - 1
    request_id = books.desk.placed(hold_nano=1_000_000)
    # when
    books.desk.now_ms += 5_000
    books.settle(request_id)
    books.drain()
    # then
    (event,) = books.events()
    assert (event.day.day, event.settled_at.day) == (10, 11)
    assert books.check() == {}
