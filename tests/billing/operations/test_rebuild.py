"""Epochs: a Redis that lost its registers grants nothing until they are right again."""

from collections.abc import Callable

import pytest

from billing import registers
from billing.credit import balances as credit
from billing.fault_isolation import SomeFailed
from billing.holding import key_status
from billing.holding.holds import Cold, Placed, Refused, SpendScope
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import ShardEpoch
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.open_books import Books

COST_PICO = 280_000_000
DAY_MS = 86_400_000


def rebuilt(books: Books) -> None:
    rebuild.rebuild_cold(books.desk.client, now=desks.at(books.desk.now_ms))
    books.adopt_epoch()


def test_an_emptied_redis_refuses_until_it_is_rebuilt_and_equals_postgres_again(
    books: Books,
) -> None:
    # given
    books.served()
    books.drain()
    before = books.balance()
    # when
    books.desk.client.flushall()
    with pytest.raises(Cold):
        books.desk.place()
    rebuilt(books)
    # then
    assert isinstance(books.desk.place(hold_nano=1000)[1], Placed)
    assert books.balance().spent_pico == before.spent_pico == COST_PICO
    assert books.balance().credit_pico == before.credit_pico
    assert books.check() == {}


def test_the_epoch_of_before_is_cold_after_a_rebuild(books: Books) -> None:
    # given
    old = books.desk.epoch
    rebuild.rebuild(books.desk.client, books.shard, now=desks.at(books.desk.now_ms))
    # when / then
    with pytest.raises(Cold):
        books.desk.place()
    books.adopt_epoch()
    assert books.desk.epoch != old
    assert isinstance(books.desk.place()[1], Placed)


def test_a_warm_shard_is_left_alone(books: Books) -> None:
    # given
    rebuild.rebuild_cold(books.desk.client, now=desks.at(books.desk.now_ms))
    # when
    done = rebuild.rebuild_cold(books.desk.client, now=desks.at(books.desk.now_ms))
    # then
    assert done == []


def test_a_rebuild_takes_up_what_is_unread_and_what_is_open(books: Books) -> None:
    # given: one posted, one unread, one open
    books.served()
    books.drain()
    books.served()
    open_request = books.desk.placed(hold_nano=500)
    # when
    rebuild.rebuild(books.desk.client, books.shard, now=desks.at(books.desk.now_ms))
    books.adopt_epoch()
    # then
    assert books.balance().spent_pico == 2 * COST_PICO
    assert books.balance().held_pico == 500_000
    assert books.check() == {}
    books.settle(open_request, usage=(0, 0))
    assert books.balance().held_pico == 0
    books.drain()
    assert books.check() == {}


def test_a_settle_that_crosses_the_loss_of_redis_is_booked_late(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.client.flushall()
    with pytest.raises(Cold):
        books.settle(request_id)
    rebuilt(books)
    # when
    settled = books.settle(request_id)
    books.drain()
    # then
    assert (settled.charged_nano, settled.late) == (280_000, True)
    assert books.balance().spent_pico == COST_PICO
    assert books.check() == {}


def test_a_stale_register_does_not_survive(books: Books) -> None:
    # given: Redis comes back with less spent than Postgres knows of, and an epoch of its own
    books.served()
    books.drain()
    client, tag = books.desk.client, books.desk.tag
    client.hset(registers.tenant_key(tag, books.tenant.pk), "spent", 0)
    client.set(registers.epoch_key(tag), "of-another-time")
    # when
    rebuilt(books)
    # then
    assert books.balance().spent_pico == COST_PICO


def test_a_revoked_key_stays_revoked(books: Books) -> None:
    # given
    key_status.revoke(books.desk.client, tenant_id=books.tenant.pk, api_key_id=books.desk.key)
    books.desk.client.flushall()
    # when
    rebuilt(books)
    # then
    _, outcome = books.desk.place()
    assert isinstance(outcome, Refused)
    assert outcome.code == "key_revoked"


def test_a_cap_is_rebuilt_with_what_its_window_has_spent(books: Books) -> None:
    # given: spent today, and spent yesterday
    books.served()
    books.desk.now_ms += DAY_MS
    books.served()
    books.drain()
    quotas.set_quota(
        tenant=books.tenant,
        cap=Cap(scope_kind="key", scope_id="5", window="day", limit_pico=1_000_000_000),
        actor="alice",
        now=desks.at(books.desk.now_ms),
        client=books.desk.client,
    )
    books.desk.client.flushall()
    # when
    rebuilt(books)
    # then
    assert books.desk.spend_register(SpendScope("key", "5", "day", 0)) == (280_000, 0)
    assert books.check() == {}


def test_a_rebuild_that_fails_half_way_leaves_the_shard_cold(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    books.desk.client.flushall()
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "_add_open_holds", _fail)
        with pytest.raises(SomeFailed, match="shard 0: RuntimeError: gone"):
            rebuilt(books)
    with pytest.raises(Cold):
        books.desk.place()
    # when
    books.desk.now_ms += 10_000
    rebuilt(books)
    # then
    assert isinstance(books.desk.place()[1], Placed)


def _fail(*_: object) -> None:
    raise RuntimeError("gone")


def test_a_shard_that_cannot_be_rebuilt_leaves_the_others_warm_and_waits_its_turn(
    books: Books,
) -> None:
    # given: leases that are no set, in a shard that is not this tenant's
    client, sick = books.desk.client, (books.shard + 1) % registers.SHARDS
    client.flushall()
    client.set(registers.leases_key(registers.tag_of_shard(sick)), "nonsense")
    # when
    with pytest.raises(SomeFailed) as failed:
        rebuilt(books)
    # then
    assert [name for name, _ in failed.value.failures] == [f"shard {sick}"]
    assert rebuild.cold_shards(client) == [sick]
    books.adopt_epoch()
    assert isinstance(books.desk.place()[1], Placed)
    # and: at once it is not tried again, later it is
    assert rebuild.rebuild_cold(client, now=desks.at(books.desk.now_ms + 9_999)) == []
    client.delete(registers.leases_key(registers.tag_of_shard(sick)))
    assert rebuild.rebuild_cold(client, now=desks.at(books.desk.now_ms + 10_000)) == [sick]
    assert ShardEpoch.objects.exclude(failed_at=None).count() == 0


def test_a_grant_made_during_a_rebuild_is_not_lost(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    before: Callable[..., None] = rebuild._add_open_holds

    def grant_first(*args: object) -> None:
        credit.grant(tenant=books.tenant, amount_pico=10**12, reason="more", created_by="test")
        before(*args)

    monkeypatch.setattr(rebuild, "_add_open_holds", grant_first)
    # when
    rebuild.rebuild(books.desk.client, books.shard, now=desks.at(books.desk.now_ms))
    # then
    assert books.desk.tenant_register()["credit"] == 2_000_000_000


def test_every_shard_gets_an_epoch_at_the_first_start(books: Books) -> None:
    # when
    rebuild.rebuild_cold(books.desk.client, now=desks.at(books.desk.now_ms))
    # then
    assert ShardEpoch.objects.count() == registers.SHARDS
    assert rebuild.cold_shards(books.desk.client) == []


def test_the_register_of_a_day_that_is_over_goes_by_itself(books: Books) -> None:
    # given: a hold of yesterday that is still open
    scope = SpendScope("tenant", str(books.tenant.pk), "day", 10**9)
    books.desk.spend = (scope,)
    books.desk.placed(hold_nano=1_000)
    yesterday_ms = books.desk.now_ms
    books.desk.now_ms += 86_400_000
    # when
    rebuild.rebuild(books.desk.client, books.shard, now=desks.at(books.desk.now_ms))
    # then
    bucket = registers.span_of("day", yesterday_ms).bucket
    key = registers.spend_key(
        books.desk.tag, books.tenant.pk, kind="tenant", scope=scope.id, bucket=bucket
    )
    assert books.desk.spend_register(scope, at_ms=yesterday_ms) == (0, 1_000)
    assert books.desk.client.pttl(key) > 0
