"""Any order of steps: what is spent and held never passes a cap, and the books agree."""

from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from billing import registers
from billing.holding import holds
from billing.holding.holds import HoldNotOpen, Placed, SpendScope
from tests.billing import desk as desks
from tests.billing.desk import Desk

CREDIT_NANO = 5_000
CAP_NANO = 3_500
CLIENTS: list[redis.Redis] = []


class MoneyMachine(RuleBasedStateMachine):
    """A model of one tenant beside Redis: what it must have debited, holds, and has told."""

    open_holds = Bundle("open_holds")
    over = Bundle("over")

    @initialize()
    def begin(self) -> None:
        (client,) = CLIENTS
        client.flushall()
        desks.warm(client, tenant=71, credit_nano=CREDIT_NANO)
        self.scope = SpendScope("key", "5", "day", CAP_NANO)
        self.desk = Desk(client=client, spend=(self.scope,))
        self.held: dict[str, int] = {}
        self.checkpoints: dict[str, int] = {}
        self.told = 0

    @rule(target=open_holds, hold_nano=st.integers(0, 2_500))
    def place(self, hold_nano: int) -> str:
        free = CAP_NANO - self.spent - sum(self.held.values())
        request_id, outcome = self.desk.place(hold_nano=hold_nano)
        assert isinstance(outcome, Placed) == (hold_nano == 0 or hold_nano <= free)
        if isinstance(outcome, Placed):
            self.held[request_id] = hold_nano
        return request_id

    @rule(request_id=open_holds, charge_nano=st.integers(0, 2_500))
    def checkpoint(self, request_id: str, charge_nano: int) -> None:
        if request_id in self.held:
            self.desk.checkpoint(request_id, charge_nano=charge_nano)
            self.checkpoints[request_id] = min(charge_nano, self.held[request_id])

    @rule(target=over, request_id=consumes(open_holds), charge_nano=st.integers(0, 4_000))
    def settle(self, request_id: str, charge_nano: int) -> str:
        if request_id not in self.held:
            return request_id
        settled = self.desk.settle(request_id, charge_nano)
        hold_nano = self.held.pop(request_id)
        assert settled.charged_nano == min(charge_nano, hold_nano)
        assert settled.charged_nano + settled.overage_nano == charge_nano
        self.told += 1
        return request_id

    @rule(request_id=over, charge_nano=st.integers(0, 4_000))
    def settle_again_or_late(self, request_id: str, charge_nano: int) -> None:
        entries = len(self.desk.entries())
        settled = self.desk.settle(request_id, charge_nano)
        again = self.desk.settle(request_id, charge_nano + 1)
        assert again == settled
        self.told += len(self.desk.entries()) - entries
        assert len(self.desk.entries()) - entries in (0, 1)

    @rule(target=over, request_id=consumes(open_holds))
    def void(self, request_id: str) -> str:
        if request_id in self.held:
            self.desk.void(request_id)
            self.desk.void(request_id)
            del self.held[request_id]
        return request_id

    @rule(target=over, request_id=consumes(open_holds))
    def expire(self, request_id: str) -> str:
        if request_id in self.held:
            spent = self.spent
            self.desk.now_ms += holds.LEASE_MS
            assert self.desk.expire(request_id) is True
            assert self.desk.expire(request_id) is False
            assert self.spent == spent + self.checkpoints.get(request_id, 0)
            del self.held[request_id]
            self.told += 1
            with pytest.raises(HoldNotOpen):
                self.desk.checkpoint(request_id, charge_nano=1)
        return request_id

    @property
    def spent(self) -> int:
        return self.desk.tenant_register()["spent"]

    @invariant()
    def within_every_limit(self) -> None:
        if not hasattr(self, "desk"):
            return
        register = self.desk.tenant_register()
        spent, held = self.desk.spend_register(self.scope)
        assert register["held"] == held == sum(self.held.values())
        assert register["spent"] == spent
        assert spent + held <= CAP_NANO
        entries = self.desk.entries()
        assert len(entries) == self.told
        assert spent == sum(int(entry["c"]) for entry in entries)
        leases = self.desk.client.zcard(registers.leases_key(self.desk.tag))
        assert leases == len(self.held)


@pytest.fixture
def machine_client(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    CLIENTS.append(redis_client)
    yield redis_client
    CLIENTS.clear()


@pytest.mark.usefixtures("machine_client")
def test_no_order_of_steps_breaks_a_limit_or_loses_an_event() -> None:
    run_state_machine_as_test(
        MoneyMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
