"""Caps that are set while money is moving count all of it, and nothing twice."""

from typing import Any

import pytest
from django.db import transaction

from billing import locks
from billing.drain import metering
from billing.errors import Cold, LimitRefused, LockTimeout
from billing.holding import holds
from billing.holding.holds import Placed, Refused, SpendScope
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import Quota, RateLimit
from tests.billing import desk as desks
from tests.billing.open_books import Books
from tests.people import Person

COST_PICO = 280_000_000
BY_ALICE: dict[str, Any] = {"actor": "alice", "now": desks.at(desks.NOON_MS)}
DAILY = SpendScope("key", "5", "day", 1_000_000)


def cap(books: Books, *, limit_pico: int = 1_000_000_000, window: str = "day") -> Quota:
    return quotas.set_quota(
        tenant=books.tenant,
        cap=Cap(scope_kind="key", scope_id="5", window=window, limit_pico=limit_pico),
        actor="alice",
        now=desks.at(books.desk.now_ms),
        client=books.desk.client,
    )


def test_a_new_cap_knows_what_was_spent_before(books: Books) -> None:
    # given: one request posted, one still in the stream
    books.served()
    books.drain()
    books.served()
    # when
    cap(books)
    # then
    assert books.desk.spend_register(DAILY) == (560_000, 0)
    books.drain()
    assert books.desk.spend_register(DAILY) == (560_000, 0)
    assert books.check() == {}


def test_a_request_admitted_before_the_cap_counts_when_it_settles(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    cap(books)
    # when
    books.settle(request_id)
    books.drain()
    # then
    assert books.desk.spend_register(DAILY) == (280_000, 0)
    assert books.check() == {}


def test_a_request_under_the_cap_counts_once(books: Books) -> None:
    # given
    cap(books)
    books.desk.spend = (DAILY,)
    # when
    books.served()
    books.drain()
    # then
    assert books.desk.spend_register(DAILY) == (280_000, 0)
    assert books.check() == {}


def test_a_cap_lifted_and_set_again_knows_what_was_spent_meanwhile(books: Books) -> None:
    # given
    quota = cap(books)
    books.desk.spend = (DAILY,)
    books.served()
    quotas.remove_quota(tenant=books.tenant, quota_id=quota.pk, **BY_ALICE)
    books.desk.spend = ()
    books.served()
    books.drain()
    # when
    cap(books)
    # then
    assert books.desk.spend_register(DAILY) == (560_000, 0)
    assert books.check() == {}


@pytest.mark.parametrize("window", ["day", "week", "month", "lifetime"])
def test_a_cap_refuses_what_would_pass_it(books: Books, window: str) -> None:
    # given
    books.served()
    cap(books, window=window, limit_pico=300_000_000)
    books.desk.spend = (SpendScope("key", "5", window, 300_000),)
    # when
    _, refused = books.desk.place(hold_nano=20_001)
    _, placed = books.desk.place(hold_nano=20_000)
    # then
    assert refused == Refused("over_budget", "key", "5", window, 300_000, 20_000, 0)
    assert isinstance(placed, Placed)


def test_a_cap_cannot_be_set_on_a_cold_shard(books: Books) -> None:
    # given
    books.desk.client.flushall()
    metering.ensure_groups(books.desk.client)
    # when / then
    with pytest.raises(Cold):
        cap(books)
    assert Quota.objects.count() == 0


def test_changing_a_cap_changes_its_limit_only(books: Books) -> None:
    # given
    first = cap(books)
    # when
    second = cap(books, limit_pico=5)
    # then
    assert second.pk == first.pk
    assert [int(q.limit_pico) for q in quotas.limits_for(books.tenant).quotas] == [5]


def test_a_cap_that_is_said_again_is_as_old_as_it_was(books: Books) -> None:
    # given
    first = cap(books)
    long_ago = desks.at(0)
    Quota.objects.update(limit_since=long_ago)
    # when
    again = cap(books, limit_pico=int(first.limit_pico))
    # then
    assert again.limit_since == long_ago
    # when
    other = cap(books, limit_pico=int(first.limit_pico) + 1)
    # then
    assert other.limit_since is not None
    assert other.limit_since > long_ago


@pytest.mark.parametrize("limit", [-1, 10**30, 1.5, True, None])
def test_a_limit_that_is_no_amount_is_refused(books: Books, limit: object) -> None:
    with pytest.raises(LimitRefused):
        cap(books, limit_pico=limit)  # type: ignore[arg-type]


def test_a_scope_of_another_tenant_cannot_be_limited(alice: Person, charlie: Person) -> None:
    # given
    quotas.set_rate_limit(tenant=charlie.tenant, scope_kind="key", scope_id=9, rpm=5, **BY_ALICE)
    # when / then
    with pytest.raises(LimitRefused):
        quotas.set_rate_limit(tenant=alice.tenant, scope_kind="key", scope_id=9, rpm=1, **BY_ALICE)
    with pytest.raises(LimitRefused):
        quotas.set_rate_limit(
            tenant=alice.tenant, scope_kind="tenant", scope_id=charlie.tenant.pk, rpm=1, **BY_ALICE
        )
    assert RateLimit.objects.get().rpm == 5


def test_a_rate_limit_of_nothing_is_lifted(alice: Person) -> None:
    # given
    quotas.set_rate_limit(
        tenant=alice.tenant, scope_kind="key", scope_id=9, rpm=5, tpm=7, **BY_ALICE
    )
    # when
    lifted = quotas.set_rate_limit(tenant=alice.tenant, scope_kind="key", scope_id=9, **BY_ALICE)
    # then
    assert lifted is None
    assert quotas.limits_for(alice.tenant).rates == ()


def test_the_lock_of_a_shard_is_free_again_after_its_owner(books: Books) -> None:
    with locks.shard(books.shard) as first:
        assert first
    with locks.shard(books.shard) as second:
        assert second


def test_lease_outlives_three_renewals() -> None:
    assert holds.LEASE_MS >= 3 * 5_000


def test_nothing_is_drained_inside_somebody_else_s_transaction(books: Books) -> None:
    # given
    books.served()
    # when / then: a rollback would lose what was acknowledged
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        books.drain()
    assert books.drain().posted == 1


def test_a_cap_that_is_rolled_back_is_none(books: Books) -> None:
    # given
    books.served()
    # when
    with transaction.atomic():
        cap(books)
        transaction.set_rollback(True)
    # then
    assert Quota.objects.count() == 0
    assert books.drain().posted == 1
    cap(books)
    assert books.desk.spend_register(DAILY) == (280_000, 0)
    assert books.check() == {}


def test_after_a_drain_that_was_cut_off_a_cap_is_set_outside_transactions_only(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    books.served()
    with monkeypatch.context() as patch:
        patch.setattr(metering, "acknowledge", lambda *_: None)
        metering.drain(books.desk.client, books.shard, now=desks.at(books.desk.now_ms))
    # when / then
    with pytest.raises(LockTimeout), transaction.atomic():
        cap(books)
    cap(books)
    assert books.desk.spend_register(DAILY) == (280_000, 0)
