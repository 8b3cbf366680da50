"""Any order of steps over every kind of scope and both modes of holds, beside a plain model.

The model is what docs/budgets.md says: a hold counts in every cap, spending in those of the model
and the supplier that served; strict spending never passes a limit, expected spending by no more
than the overdraft.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing import registers
from billing.holding import holds
from billing.holding.holds import Placed, SettledAttempt, SpendScope
from tests.billing import desk as desks
from tests.billing.desk import Desk

CREDIT = 6_000
OVERDRAFT = 1_500
KEY = SpendScope("key", "5", "day", 5_000)
TEAM = SpendScope("team", "9", "month", 5_500)
TENANT = SpendScope("tenant", "71", "week", 5_800)
FOX = SpendScope("model", "fox", "week", 3_000)
HARE = SpendScope("model", "hare", "month", 2_000)
DEN = SpendScope("provider", "den", "day", 3_500)
FORM = SpendScope("provider", "form", "lifetime", 2_500)
WATCHED = SpendScope("tenant", "71", "lifetime", 10, shadow=True)
SESSION = SpendScope("session", registers.session_of(71, "agent"), "session", 4_000)
# With and without a session; its place is the last.
SCOPES = (KEY, TEAM, TENANT, FOX, HARE, DEN, FORM, WATCHED, SESSION)
CLIENTS: list[redis.Redis] = []


def not_in(*, of_fox: bool, of_den: bool) -> tuple[int, ...]:
    """The places of what did not serve, from 1."""
    other = (HARE if of_fox else FOX, FORM if of_den else DEN)
    return tuple(SCOPES.index(scope) + 1 for scope in other)


@dataclass
class Open:
    nano: int
    ceiling: int
    over: int
    in_session: bool
    checkpoint: int = 0
    not_in: tuple[int, ...] = ()

    @property
    def scopes(self) -> tuple[SpendScope, ...]:
        return SCOPES if self.in_session else SCOPES[:-1]


class ScopeMachine(RuleBasedStateMachine):
    """Registers of one tenant by hand, and the same in Redis."""

    @initialize()
    def begin(self) -> None:
        (client,) = CLIENTS
        client.flushall()
        desks.warm(client, tenant=71, credit_nano=CREDIT)
        self.desk = Desk(client=client)
        self.open: dict[str, Open] = {}
        self.over: dict[str, Open] = {}
        self.spent = dict.fromkeys(SCOPES, 0)
        self.spent_in_all = 0
        self.told = 0

    def held(self, scope: SpendScope | None = None) -> int:
        found = self.open.values()
        return sum(each.nano for each in found if scope is None or scope in each.scopes)

    @rule(
        nano=st.integers(0, 2_500),
        more=st.integers(0, 2_000),
        is_expected=st.booleans(),
        in_session=st.booleans(),
    )
    def place(self, nano: int, more: int, is_expected: bool, in_session: bool) -> None:
        over = OVERDRAFT if is_expected else 0
        wanted = Open(nano, nano + more if over else nano, over, in_session)
        self.desk.spend = wanted.scopes
        request_id, outcome = self.desk.place(
            hold_nano=nano, ceiling_nano=wanted.ceiling, overdraft=over
        )
        fits = self.spent_in_all + self.held() + nano <= CREDIT and all(
            self.spent[scope] + self.held(scope) + nano <= scope.limit_nano
            for scope in wanted.scopes
            if not scope.shadow
        )
        assert isinstance(outcome, Placed) == (nano == 0 or fits)
        if isinstance(outcome, Placed):
            assert outcome.session_nano == (self.spent[SESSION] if in_session else None)
            watched = self.spent[WATCHED] + self.held(WATCHED) + nano
            assert bool(outcome.shadows) == (nano > 0 and watched > WATCHED.limit_nano)
            self.open[request_id] = wanted

    @precondition(lambda self: getattr(self, "open", None))
    @rule(
        pick=st.integers(0),
        charge=st.integers(0, 4_000),
        served=st.builds(not_in, of_fox=st.booleans(), of_den=st.booleans()),
    )
    def checkpoint(self, pick: int, charge: int, served: tuple[int, ...]) -> None:
        request_id, hold = self._pick(self.open, pick)
        hold.not_in = served
        hold.checkpoint = min(charge, hold.nano)
        self.desk.checkpoint(request_id, charge_nano=charge, not_in=hold.not_in)

    @precondition(lambda self: getattr(self, "open", None))
    @rule(
        pick=st.integers(0),
        charge=st.integers(0, 6_000),
        served=st.builds(not_in, of_fox=st.booleans(), of_den=st.booleans()),
    )
    def settle(self, pick: int, charge: int, served: tuple[int, ...]) -> None:
        request_id, hold = self._pick(self.open, pick)
        due = min(charge, self._payable(hold, served))
        settled = self._settle(request_id, hold, charge, served)
        assert (settled.charged_nano, settled.overage_nano) == (due, charge - due)
        self._move(request_id, hold, due, served)

    @precondition(lambda self: getattr(self, "open", None))
    @rule(pick=st.integers(0))
    def void(self, pick: int) -> None:
        request_id, hold = self._pick(self.open, pick)
        self.desk.void(request_id)
        self.over[request_id] = self.open.pop(request_id)
        assert hold.nano >= 0

    @precondition(lambda self: getattr(self, "open", None))
    @rule()
    def expire_all(self) -> None:
        """The owner crashed: every lease runs out."""
        self.desk.now_ms += holds.LEASE_MS
        for request_id, hold in list(self.open.items()):
            assert self.desk.expire(request_id) is True
            self._move(request_id, hold, hold.checkpoint, hold.not_in)

    @precondition(lambda self: getattr(self, "over", None))
    @rule(pick=st.integers(0), charge=st.integers(0, 6_000))
    def settle_again(self, pick: int, charge: int) -> None:
        """The first settle's outcome, whatever is said this time; a late one is bounded below."""
        request_id, hold = self._pick(self.over, pick)
        before = self._registers()
        entries = len(self.desk.entries())
        self._settle(request_id, hold, charge, hold.not_in)
        grown = len(self.desk.entries()) - entries
        self._settle(request_id, hold, charge + 1, hold.not_in)
        assert len(self.desk.entries()) - entries == grown <= 1
        self.told += grown
        if not grown:
            assert self._registers() == before
        self._adopt()

    def _pick(self, among: dict[str, Open], pick: int) -> tuple[str, Open]:
        request_id = list(among)[pick % len(among)]
        return request_id, among[request_id]

    def _payable(self, hold: Open, not_in: tuple[int, ...]) -> int:
        if not hold.over:
            return hold.nano
        rooms = [CREDIT + hold.over - self.spent_in_all - self.held()]
        rooms += [
            scope.limit_nano + hold.over - self.spent[scope] - self.held(scope)
            for at, scope in enumerate(hold.scopes, start=1)
            if at not in not_in and not scope.shadow
        ]
        return min(hold.ceiling, hold.nano + max(min(rooms), 0))

    def _settle(
        self, request_id: str, hold: Open, charge: int, not_in: tuple[int, ...]
    ) -> holds.Settled:
        self.desk.spend = hold.scopes
        body = self.desk.body(request_id, cost_pico=charge * 1000)
        return self.desk.settle_events(request_id, [SettledAttempt(body, charge, not_in)])

    def _move(self, request_id: str, hold: Open, nano: int, not_in: tuple[int, ...]) -> None:
        hold.not_in = not_in
        self.over[request_id] = self.open.pop(request_id)
        self.spent_in_all += nano
        for at, scope in enumerate(hold.scopes, start=1):
            if at not in not_in:
                self.spent[scope] += nano
        self.told += 1

    def _adopt(self) -> None:
        """What a late settle took is bounded by the invariants, and read back."""
        self.spent_in_all = self.desk.tenant_register()["spent"]
        for scope in SCOPES:
            self.spent[scope] = self.desk.spend_register(scope)[0]

    def _registers(self) -> list[tuple[int, int]]:
        return [self.desk.spend_register(scope) for scope in SCOPES]

    @invariant()
    def registers_are_the_model_s_and_within_every_bound(self) -> None:
        if not hasattr(self, "desk"):
            return
        register = self.desk.tenant_register()
        assert (register["spent"], register["held"]) == (self.spent_in_all, self.held())
        assert register["spent"] + register["held"] <= CREDIT + OVERDRAFT
        for scope in SCOPES:
            spent, held = self.desk.spend_register(scope)
            assert (spent, held) == (self.spent[scope], self.held(scope))
            assert scope.shadow or spent + held <= scope.limit_nano + OVERDRAFT
        assert len(self.desk.entries()) == self.told
        assert register["spent"] == sum(int(entry["c"]) for entry in self.desk.entries())


@pytest.fixture
def machine_client(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    CLIENTS.append(redis_client)
    yield redis_client
    CLIENTS.clear()


@pytest.mark.usefixtures("machine_client")
def test_no_order_of_steps_breaks_a_scope_s_bound() -> None:
    run_state_machine_as_test(
        ScopeMachine,
        settings=settings(
            max_examples=80,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
