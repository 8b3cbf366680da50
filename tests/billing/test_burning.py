"""Which grant pays first, and what an expired one leaves behind."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import burning, credit
from billing.burning import Pot
from billing.ledger import Kind
from billing.models import CreditGrant, GrantUse
from tests.billing.books import Books

USD = 10**12
GrantKind = CreditGrant.Kind


def granted(books: Books, dollars: int, **terms: Any) -> CreditGrant:
    return credit.grant(
        tenant=books.tenant, amount_pico=dollars * USD, reason="test", created_by="ada", **terms
    )


def use(books: Books, dollars: int) -> None:
    books.served(usage=(dollars * 500_000, 0), hold_nano=dollars * 10**9)
    books.drain()


def left(books: Books, now: datetime) -> dict[int, int]:
    return {pot.grant.pk: pot.left_pico // USD for pot in burning.allocate(books.tenant, now=now)}


def soon(hours: float = 1) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def test_usage_burns_by_priority_then_expiry_then_given_before_bought(books: Books) -> None:
    # given: the fixture granted $1 at the usual priority, without an end
    start = CreditGrant.objects.get()
    bought = granted(books, 2, kind=GrantKind.PAID)
    ending = granted(books, 2, expires_at=soon())
    first = granted(books, 2, priority=1, kind=GrantKind.PAID)
    # when
    use(books, 5)
    # then
    now = datetime.now(UTC) + timedelta(minutes=1)
    assert left(books, now) == {first.pk: 0, ending.pk: 0, start.pk: 0, bought.pk: 2}
    assert left(books, now) == {first.pk: 0, ending.pk: 0, start.pk: 0, bought.pk: 2}
    assert GrantUse.objects.count() == 3


def test_an_expired_grant_is_taken_back_once_and_given_credit_costs_nothing(books: Books) -> None:
    # given
    ending = granted(books, 3, expires_at=soon())
    use(books, 1)
    # when
    first = burning.expire_due(now=soon(2), client=books.desk.client)
    second = burning.expire_due(now=soon(3), client=books.desk.client)
    # then
    assert [(made.amount_pico, made.expires_id) for made in first] == [(-2 * USD, ending.pk)]
    assert second == []
    assert books.balance().left_pico == USD
    assert books.account(Kind.PROMO_EXPENSE) == 2 * USD
    assert books.check() == {}


def test_bought_credit_that_expires_is_breakage(books: Books) -> None:
    # given
    granted(books, 3, kind=GrantKind.PAID, expires_at=soon())
    # when
    burning.expire_due(now=soon(2), client=books.desk.client)
    # then
    assert books.account(Kind.BREAKAGE) == -3 * USD
    assert books.account(Kind.CASH) == 3 * USD


def test_credit_that_is_held_expires_when_the_request_has_ended(books: Books) -> None:
    # given
    granted(books, 3, expires_at=soon())
    request = books.desk.placed(hold_nano=2 * 10**9)
    # when
    first = burning.expire_due(now=soon(2), client=books.desk.client)
    books.desk.void(request)
    second = burning.expire_due(now=soon(2), client=books.desk.client)
    # then
    assert [int(made.amount_pico) for made in (*first, *second)] == [-2 * USD, -1 * USD]
    assert books.balance().left_pico == USD


def test_usage_after_an_expiry_does_not_burn_what_had_expired(books: Books) -> None:
    # given
    ended = granted(books, 3, expires_at=datetime.now(UTC) - timedelta(hours=1))
    # when
    use(books, 1)
    # then
    assert left(books, soon())[ended.pk] == 3


@pytest.mark.parametrize("amount", [0, 1, 7])
def test_burning_more_than_there_is_leaves_the_rest_owed(amount: int) -> None:
    # given
    pots = [Pot(CreditGrant(pk=i, priority=1), 2) for i in range(3)]
    # when
    taken = burning.burn(pots, amount, at=datetime.now(UTC))
    # then
    assert sum(part for _, part in taken) == min(amount, 6)


@given(
    amounts=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    steps=st.lists(st.integers(0, 60), max_size=8),
)
def test_burning_in_steps_is_burning_at_once(amounts: list[int], steps: list[int]) -> None:
    # given
    at = datetime.now(UTC)
    stepwise = [Pot(CreditGrant(pk=i, priority=i % 3), a) for i, a in enumerate(amounts)]
    at_once = [Pot(pot.grant, pot.left_pico) for pot in stepwise]
    # when
    for step in steps:
        burning.burn(stepwise, step, at=at)
    burning.burn(at_once, sum(steps), at=at)
    # then
    assert [pot.left_pico for pot in stepwise] == [pot.left_pico for pot in at_once]
    assert all(pot.left_pico >= 0 for pot in at_once)
