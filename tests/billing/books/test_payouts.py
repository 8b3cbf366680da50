"""Payouts to sellers: once per reference, and never more than is owed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from billing.books import payouts
from billing.errors import PayoutRefused
from billing.holding import holds
from billing.models import AuditEntry, Payout, Transfer
from billing.money import PICO_PER_CENT
from tests.billing import desk as desks
from tests.billing.open_books import Books

NOW = desks.at(desks.NOON_MS)
TODAY = NOW.date()
EARNED = 1_234 * PICO_PER_CENT + 567_800_000  # $12.34 and a part of a cent


def earn(books: Books, pico: int = EARNED) -> None:
    """The supplier of the books' events is acme."""
    books.served(supplier_pico=pico)
    books.drain()


def pay(cents: int = 1_234, reference: str = "bank-1", **changes: Any) -> Payout:
    facts = {"supplier": "acme", "paid_on": TODAY, "actor": "op", "now": NOW, **changes}
    return payouts.record(amount_cents=cents, reference=reference, **facts)


def test_what_is_sent_is_owed_no_more_and_came_from_cash(books: Books) -> None:
    # given
    earn(books)
    # when
    made = pay()
    # then
    assert payouts.owed_pico("acme") == 567_800_000
    assert books.account("cash") == -1_234 * PICO_PER_CENT
    assert books.account("provider_payable", supplier="acme") == -567_800_000
    assert (made.transfer.code, made.transfer.memo) == ("payout", "acme: bank-1")
    assert AuditEntry.objects.get(action="seller.payout").after == {
        "amount_cents": 1_234,
        "reference": "bank-1",
    }
    assert books.check() == {}


def test_the_same_reference_books_once_and_other_facts_are_refused(books: Books) -> None:
    earn(books)
    first = pay(500)
    assert pay(500) == first
    yesterday = TODAY - timedelta(days=1)
    for changes in ({"cents": 501}, {"supplier": "other"}, {"paid_on": yesterday}):
        with pytest.raises(PayoutRefused, match="other facts"):
            pay(**{"cents": 500, **changes})
    assert Payout.objects.count() == 1
    assert payouts.owed_pico("acme") == EARNED - 500 * PICO_PER_CENT


@pytest.mark.parametrize("cents", [1_235, 0, -1, 10**15, True])
def test_more_than_is_owed_or_no_sum_at_all_moves_nothing(books: Books, cents: int) -> None:
    earn(books)
    before = Transfer.objects.count()
    with pytest.raises(PayoutRefused):
        pay(cents)
    assert (Transfer.objects.count(), Payout.objects.count()) == (before, 0)
    assert payouts.owed_pico("acme") == EARNED


@pytest.mark.parametrize("reference", ["", "  ", "x" * 91, "a\x00b"])
def test_a_payout_needs_a_reference_and_a_day_that_has_come(books: Books, reference: str) -> None:
    earn(books)
    with pytest.raises(PayoutRefused, match="reference"):
        pay(reference=reference)
    with pytest.raises(PayoutRefused, match="not before"):
        pay(paid_on=TODAY + timedelta(days=1))
    assert not Payout.objects.exists()


def test_what_an_expired_request_may_still_be_billed_is_not_owed(books: Books) -> None:
    # given one that was served, and one whose owner fell silent
    earn(books)
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.checkpoint(request_id, charge_nano=216_000, usage=(100, 2), cost_pico=216_000_000)
    books.desk.now_ms += holds.LEASE_MS
    books.desk.expire(request_id)
    books.drain()
    # then
    assert books.account("supplier_exposure", supplier="acme") > 0
    assert payouts.owed_pico("acme") == EARNED
    with pytest.raises(PayoutRefused, match="1234 whole cents are owed"):
        pay(1_235)


@pytest.mark.django_db(transaction=True)
def test_two_at_once_cannot_both_take_what_is_owed_once(books: Books) -> None:
    # given
    earn(books)

    def attempt(number: int) -> bool:
        try:
            pay(700, f"bank-{number}")
        except PayoutRefused:
            return False
        finally:
            connection.close()
        return True

    # when
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(attempt, range(4)))
    # then
    assert sum(done) == Payout.objects.count() == 1
    assert payouts.owed_pico("acme") == EARNED - 700 * PICO_PER_CENT


@pytest.mark.parametrize(
    "change", [lambda rows: rows.update(amount_cents=1), lambda rows: rows.delete()]
)
def test_postgres_keeps_payouts(books: Books, change: Callable[[Any], Any]) -> None:
    earn(books)
    pay()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        change(Payout.objects.all())
