"""Credit: granted in the ledger, told to Redis, never guessed."""

from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from billing import registers
from billing.books import ledger
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.credit import balances as credit
from billing.credit.balances import Balance
from billing.errors import CreditRefused, UnbalancedTransfer
from billing.holding.holds import Placed, Refused
from billing.models import CreditGrant, Entry, Tenant, Transfer
from billing.money import REGISTER_NANO_MAX
from tests.billing.open_books import Books
from tests.people import Person

USD = 10**12
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def test_a_grant_moves_money_and_reaches_redis(books: Books) -> None:
    # when
    credit.grant(tenant=books.tenant, amount_pico=2 * USD, reason="top-up", created_by="ada")
    # then
    assert books.balance() == Balance(credit_pico=3 * USD, spent_pico=0, held_pico=0)
    assert books.account(Kind.TENANT_CREDIT, tenant=True) == -3 * USD
    assert books.account(Kind.PROMO_EXPENSE) == 3 * USD
    assert books.desk.tenant_register()["credit"] == 3_000_000_000


def test_what_is_held_is_not_left(books: Books) -> None:
    # when
    books.desk.placed(hold_nano=400_000_000)
    # then
    assert books.balance().left_pico == 600_000_000_000


def test_a_credit_limit_lets_a_tenant_go_below_zero_by_as_much(books: Books) -> None:
    # given
    credit.change_terms(tenant=books.tenant, actor="ada", now=NOW, credit_limit_pico=USD // 2)
    # when
    _, within = books.desk.place(hold_nano=1_500_000_000)
    _, beyond = books.desk.place(hold_nano=1)
    # then
    assert within == Placed(balance_nano=0)
    assert isinstance(beyond, Refused)


def test_a_suspended_tenant_is_refused_at_its_next_call(books: Books) -> None:
    # when
    credit.change_terms(tenant=books.tenant, actor="ada", now=NOW, status=Tenant.Status.SUSPENDED)
    # then
    _, outcome = books.desk.place()
    assert isinstance(outcome, Refused)
    assert outcome.code == "tenant_suspended"


@pytest.mark.parametrize("amount", [0, 1.5, 10**30, -(10**30), None])
def test_an_amount_that_is_none_is_refused(alice: Person, amount: Any) -> None:
    with pytest.raises(CreditRefused):
        credit.grant(tenant=alice.tenant, amount_pico=amount, reason="", created_by="")
    assert (CreditGrant.objects.count(), Transfer.objects.count()) == (0, 0)


def test_a_push_that_got_lost_is_repeated(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    with monkeypatch.context() as patch:
        patch.setattr(credit, "push", _away)
        credit.grant(tenant=books.tenant, amount_pico=USD, reason="top-up", created_by="ada")
    assert books.desk.tenant_register()["credit"] == 1_000_000_000
    # when
    pushed = [credit.push_stale(books.desk.client), credit.push_stale(books.desk.client)]
    # then
    assert pushed == [1, 0]
    assert books.desk.tenant_register()["credit"] == 2_000_000_000


def _away(*_: object) -> None:
    raise redis.ConnectionError("away")


def test_larger_credit_than_a_register_holds_is_clamped() -> None:
    assert credit.as_register(10**30) == REGISTER_NANO_MAX - 1
    assert credit.as_register(-1) == -1
    assert credit.as_register(1_999) == 1


def test_one_tenant_s_credit_is_not_another_s(books: Books, charlie: Person) -> None:
    # when
    credit.grant(tenant=charlie.tenant, amount_pico=USD, reason="own", created_by="ada")
    # then
    assert books.balance().credit_pico == USD
    key = registers.tenant_key(registers.shard_tag(charlie.tenant.pk), charlie.tenant.pk)
    assert books.desk.client.hget(key, "credit") == b"1000000000"


def draft(*legs: Leg, key: str = "one") -> Draft:
    return Draft(code=Code.GRANT, legs=legs, idempotency_key=key)


@pytest.mark.django_db
def test_a_transfer_posted_twice_is_posted_once() -> None:
    # given
    legs = (Leg(AccountKey(Kind.CASH), 5), Leg(AccountKey(Kind.REVENUE), -5))
    # when
    first, second = ledger.post(draft(*legs)), ledger.post(draft(*legs))
    # then
    assert first == second
    assert Entry.objects.count() == 2
    assert ledger.balance(AccountKey(Kind.CASH)) == 5


@pytest.mark.django_db
def test_legs_of_one_account_become_one_entry() -> None:
    # when
    ledger.post(
        draft(
            Leg(AccountKey(Kind.CASH), 5),
            Leg(AccountKey(Kind.CASH), 7),
            Leg(AccountKey(Kind.REVENUE), -12),
        )
    )
    # then
    assert ledger.balance(AccountKey(Kind.CASH)) == 12
    assert ledger.balance(AccountKey(Kind.REVENUE)) == -12
    assert Entry.objects.count() == 2


@pytest.mark.django_db
def test_legs_that_do_not_sum_to_zero_are_a_bug() -> None:
    with pytest.raises(UnbalancedTransfer):
        ledger.post(draft(Leg(AccountKey(Kind.CASH), 5), Leg(AccountKey(Kind.REVENUE), -4)))
    assert Transfer.objects.count() == 0
