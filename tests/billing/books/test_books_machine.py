"""Any order of requests, silences, drains, cut-off drains and losses of Redis: the books agree.

The promise: every settle that Redis acknowledged is posted exactly once, every other dispatched
attempt has exactly one expiry, and nobody ever pays past the credit.
"""

from collections.abc import Callable, Iterator
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from billing.credit import balances as credit
from billing.drain import metering
from billing.errors import Cold, HoldNotOpen
from billing.holding import holds
from billing.holding.holds import Placed
from billing.models import Tenant, UsageEvent
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.open_books import Books

START: list[Callable[[], Books]] = []
COUNTS = st.tuples(st.integers(0, 300), st.integers(0, 60))


class BooksMachine(RuleBasedStateMachine):
    """Whatever happens to a request, its owner tries to settle it in the end, or dies."""

    @initialize()
    def begin(self) -> None:
        self.books = START[0]()
        self.open: list[str] = []
        self.silent: list[str] = []
        self.acknowledged: set[str] = set()
        self.expired: set[str] = set()

    @rule(hold_nano=st.integers(0, 900_000))
    def place(self, hold_nano: int) -> None:
        request_id, outcome = self.books.desk.place(hold_nano=hold_nano)
        if isinstance(outcome, Placed):
            self.open.append(request_id)

    @rule(usage=COUNTS)
    def settle(self, usage: tuple[int, int]) -> None:
        if self.open:
            request_id = self.open.pop(0)
            self.books.settle(request_id, usage=usage, supplier_pico=usage[1] * 1000)
            self.acknowledged.add(request_id)

    @rule(usage=COUNTS)
    def checkpoint_and_fall_silent(self, usage: tuple[int, int]) -> None:
        if not self.open:
            return
        request_id = self.open.pop(0)
        cost_pico = usage[0] * desks.INPUT_PICO + usage[1] * desks.OUTPUT_PICO
        try:
            self.books.desk.checkpoint(
                request_id, charge_nano=cost_pico // 1000, usage=usage, cost_pico=cost_pico
            )
        except HoldNotOpen:
            return
        self.books.desk.now_ms += holds.LEASE_MS
        if self.books.desk.expire(request_id):
            self.expired.add(request_id)
            self.silent.append(request_id)

    @rule(usage=COUNTS)
    def settle_late(self, usage: tuple[int, int]) -> None:
        if self.silent:
            request_id = self.silent.pop(0)
            settled = self.books.settle(request_id, usage=usage)
            assert settled.late
            self.acknowledged.add(request_id)

    @rule()
    def drain(self) -> None:
        self.books.drain()

    @rule()
    def drain_and_die_before_acknowledging(self) -> None:
        with patch.object(metering, "acknowledge", side_effect=KeyboardInterrupt):
            try:
                self.books.drain()
            except KeyboardInterrupt:
                return

    @rule()
    def forget_the_epoch(self) -> None:
        client = self.books.desk.client
        rebuild.rebuild(client, self.books.shard, now=desks.at(self.books.desk.now_ms))
        with pytest.raises(Cold):
            self.books.desk.place()
        self.books.adopt_epoch()

    @rule()
    def lose_everything_that_was_drained(self) -> None:
        """Redis is emptied after a drain: open holds are lost, their settles come late."""
        self.books.drain()
        self.books.desk.client.flushall()
        rebuild.rebuild(
            self.books.desk.client, self.books.shard, now=desks.at(self.books.desk.now_ms)
        )
        self.books.adopt_epoch()
        self.silent += self.open
        self.open.clear()

    def teardown(self) -> None:
        if not hasattr(self, "books"):
            return
        self.books.drain()
        rows = UsageEvent.objects.filter(tenant=self.books.tenant)
        posted = {str(row.request_id) for row in rows if row.attempt >= 0}
        told = {str(row.request_id) for row in rows if row.attempt < 0}
        assert (posted, told) == (self.acknowledged, self.expired)
        assert all(row.state == "posted" for row in rows)
        balance = self.books.balance()
        assert balance.spent_pico == sum(row.tenant_cost_pico for row in rows)
        assert balance.left_pico >= 0
        assert self.books.check() == {}


@pytest.fixture
def start(books: Books) -> Iterator[None]:
    """Each example gets a tenant of its own with $0.003, on a shard that was just rebuilt."""

    def fresh() -> Books:
        number = Tenant.objects.count()
        tenant = Tenant.objects.create(slug=f"tenant-{number}", name=f"Tenant {number}")
        credit.grant(tenant=tenant, amount_pico=3 * 10**9, reason="start", created_by="test")
        desk = desks.Desk(client=books.desk.client, tenant=tenant.pk, price=books.price.pk)
        made = Books(desk=desk, tenant=tenant, price=books.price)
        rebuild.rebuild(desk.client, made.shard, now=desks.at(desk.now_ms))
        made.adopt_epoch()
        return made

    START.append(fresh)
    yield
    START.clear()


@pytest.mark.usefixtures("start")
def test_no_order_of_failures_loses_or_doubles_money() -> None:
    run_state_machine_as_test(
        BooksMachine,
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
