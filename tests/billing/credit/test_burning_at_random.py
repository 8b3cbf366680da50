"""Credit that ends, under requests, drains, sweeps and rebuilds in any order: what is left is
always what an oracle says that knows nothing but the grants and the requests."""

import random
from dataclasses import dataclass, field

import pytest

from billing import registers
from billing.credit import balances as credit
from billing.credit import grant_expiry
from billing.holding.holds import Placed, Refused
from billing.models import CreditGrant, GrantUse
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.open_books import Books

NANO_PICO = 1_000
UNIT = 1_000_000  # nano-dollars
HOUR_MS = 3_600_000
STEPS = 60
Kind = CreditGrant.Kind


@dataclass
class Gift:
    from_ms: int
    ends_ms: int
    nano: int


@dataclass
class Oracle:
    """Every request burns what lives at its admission, what ends first first; the rest pays for
    the rest. An open one counts with all it holds."""

    rest_nano: int
    gifts: list[Gift] = field(default_factory=list)
    requests: dict[str, tuple[int, int]] = field(default_factory=dict)

    def left_nano(self, now_ms: int) -> int:
        left = [gift.nano for gift in self.gifts]
        order = sorted(range(len(left)), key=lambda i: self.gifts[i].ends_ms)
        rest = self.rest_nano
        for at_ms, cost in sorted(self.requests.values()):
            for i in order:
                if self.gifts[i].from_ms <= at_ms < self.gifts[i].ends_ms:
                    part = min(left[i], cost)
                    left[i], cost = left[i] - part, cost - part
            rest -= cost
        return rest + sum(left[i] for i in order if self.gifts[i].ends_ms > now_ms)


@dataclass
class Walk:
    books: Books
    oracle: Oracle
    chance: random.Random
    open: dict[str, int] = field(default_factory=dict)

    def step(self) -> None:
        desk = self.books.desk
        act = self.chance.choice(
            [self.give, self.place, self.place, self.settle, self.settle, self.void, self.wait,
             self.wait, self.drain, self.sweep, self.rebuild]
        )  # fmt: skip
        act()
        desk.now_ms += 1
        at = desks.at(desk.now_ms)
        found = credit.balance(self.books.tenant, client=desk.client, now=at)
        assert found.left_pico == self.oracle.left_nano(desk.now_ms) * NANO_PICO, act.__name__

    def give(self) -> None:
        nano, now_ms = self.chance.randint(1, 5) * UNIT, self.books.desk.now_ms
        lasts_ms = self.chance.choice([0, 1, 2, 5]) * HOUR_MS
        kind = self.chance.choice([Kind.GIVEN, Kind.PAID])
        credit.grant(
            tenant=self.books.tenant,
            amount_pico=nano * NANO_PICO,
            reason="r",
            created_by="t",
            kind=kind,
            expires_at=desks.at(now_ms + lasts_ms) if lasts_ms else None,
            now=desks.at(now_ms),
        )
        if lasts_ms:
            self.oracle.gifts.append(Gift(now_ms, now_ms + lasts_ms, nano))
        else:
            self.oracle.rest_nano += nano

    def place(self) -> None:
        desk, hold = self.books.desk, self.chance.randint(1, 6) * UNIT
        request_id, outcome = desk.place(hold_nano=hold, deadline_ms=100 * HOUR_MS)
        fits = hold <= self.oracle.left_nano(desk.now_ms)
        assert isinstance(outcome, Placed if fits else Refused)
        if fits:
            self.open[request_id] = hold
            self.oracle.requests[request_id] = (desk.now_ms, hold)

    def settle(self) -> None:
        if self.open:
            request_id = self.chance.choice(list(self.open))
            cost = self.chance.randint(0, self.open.pop(request_id) // UNIT) * UNIT
            self.books.settle(request_id, usage=(cost // 2_000, 0))
            self.oracle.requests[request_id] = (self.oracle.requests[request_id][0], cost)

    def void(self) -> None:
        if self.open:
            request_id = self.chance.choice(list(self.open))
            del self.open[request_id], self.oracle.requests[request_id]
            self.books.desk.void(request_id)

    def wait(self) -> None:
        self.books.desk.now_ms += self.chance.choice([60_000, HOUR_MS // 2, HOUR_MS])

    def drain(self) -> None:
        self.books.drain()

    def sweep(self) -> None:
        grant_expiry.expire_grants(
            now=desks.at(self.books.desk.now_ms), client=self.books.desk.client
        )

    def rebuild(self) -> None:
        desk = self.books.desk
        rebuild.rebuild(desk.client, self.books.shard, now=desks.at(desk.now_ms))
        self.books.adopt_epoch()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_is_what_grants_and_requests_say(seed: int, books: Books) -> None:
    # given
    start = CreditGrant.objects.get().created_at
    books.desk.now_ms = registers.moment_ms(start) + 5
    walk = Walk(books, Oracle(rest_nano=1_000_000_000), random.Random(seed))
    # when / then
    for _ in range(STEPS):
        walk.step()
    # and in the end every end is written down, and the books and the registers are right
    for request_id in list(walk.open):
        books.settle(request_id, usage=(0, 0))
        walk.oracle.requests[request_id] = (0, 0)
    books.desk.now_ms += 10 * HOUR_MS
    walk.sweep()
    left = walk.oracle.left_nano(books.desk.now_ms)
    assert books.balance().left_pico == left * NANO_PICO
    assert credit.credit_pico(books.tenant) - books.balance().spent_pico == left * NANO_PICO
    for gift in CreditGrant.objects.filter(expires_at__isnull=False):
        used = sum(int(use.amount_pico) for use in GrantUse.objects.filter(grant=gift))
        lost = sum(int(row.amount_pico) for row in CreditGrant.objects.filter(expires=gift))
        assert used - lost == gift.amount_pico
    assert books.check() == {}
