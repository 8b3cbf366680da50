"""The periodic tasks, run as Celery runs them, against the real servers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.db import connection

from billing import registers, tasks
from billing.books import claims
from billing.drain import booking, metering
from billing.fault_isolation import SomeFailed
from billing.holding import expiry, scopes
from billing.holding.holds import SpendScope
from billing.integrity import findings, invariants, new_rows, register_checks
from billing.models import InvariantCheck, Quota, ShardEpoch, TaskRun, UsageEvent, UsageSession
from billing.operations import rebuild
from tests.billing import desk as desks
from tests.billing.open_books import Books


def test_the_drain_task_rebuilds_what_is_cold_and_drains_the_rest(books: Books) -> None:
    # given
    books.served()
    books.desk.client.delete(registers.epoch_key(books.desk.tag))
    # when
    tasks.drain_usage()
    # then
    assert UsageEvent.objects.count() == 1
    assert ShardEpoch.objects.count() == registers.SHARDS
    run = TaskRun.objects.get(name=tasks.DRAIN)
    assert run.finished_at is not None
    assert run.failed_at is None


@pytest.fixture
def neighbours(books: Books) -> tuple[Books, int]:
    """A tenant with an unread event, and the shard beside its own."""
    tasks.drain_usage()
    books.adopt_epoch()
    books.served()
    return books, (books.shard - 1) % registers.SHARDS


def told_of(shard: int) -> str:
    """What the task's run says of the shard, where operators see it."""
    with pytest.raises(SomeFailed) as failed:
        tasks.drain_usage()
    assert {name for name, _ in failed.value.failures} == {f"shard {shard}"}
    run = TaskRun.objects.get(name=tasks.DRAIN)
    assert run.failed_at is not None
    return run.failure


def test_a_shard_whose_stream_cannot_be_read_stops_no_other(
    neighbours: tuple[Books, int],
) -> None:
    # given
    books, sick = neighbours
    key = registers.stream_key(registers.tag_of_shard(sick))
    books.desk.client.delete(key)
    books.desk.client.set(key, "nonsense")
    # when
    failure = told_of(sick)
    # then
    assert f"shard {sick}: ResponseError: WRONGTYPE" in failure
    assert UsageEvent.objects.count() == 1
    assert books.check() == {}


def test_a_shard_whose_batch_cannot_be_posted_stops_no_other_and_loses_nothing(
    neighbours: tuple[Books, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: the first batch of the sick shard finds PostgreSQL too slow
    books, sick = neighbours
    client, tag = books.desk.client, registers.tag_of_shard(sick)
    ((_, fields),) = client.xrange(registers.stream_key(books.desk.tag))
    client.xadd(registers.stream_key(tag), fields)
    book = booking.book

    def slow(shard: int, *args: Any, **named: Any) -> booking.Booked:
        if shard == sick:
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = 20; SELECT pg_sleep(5)")
        return book(shard, *args, **named)

    monkeypatch.setattr(booking, "book", slow)
    # when
    failure = told_of(sick)
    # then
    assert f"shard {sick}: OperationalError" in failure
    assert UsageEvent.objects.count() == 1
    assert books.balance().spent_pico == 280_000_000
    # and: once it can be posted, the batch that was read is read again
    monkeypatch.setattr(booking, "book", book)
    with connection.cursor() as cursor:
        cursor.execute("RESET statement_timeout")
    tasks.drain_usage()
    assert client.xlen(registers.unreadable_key(tag)) == 1


def test_a_shard_whose_registers_are_broken_is_told_of_and_books_what_was_posted_once(
    neighbours: tuple[Books, int],
) -> None:
    # given: a cap that the event's hold did not know of, and whose register cannot be corrected
    books, _ = neighbours
    client, cap = books.desk.client, SpendScope("key", str(books.desk.key), "lifetime", 10**9)
    Quota.objects.create(
        tenant=books.tenant, scope_kind=cap.kind, scope_id=cap.id, window=cap.window, limit_pico=1
    )
    register, _ = scopes.register_of(books.desk.tag, books.tenant.pk, cap, books.desk.now_ms)
    client.hset(register, "spent", "1.5")
    # when
    failure = told_of(books.shard)
    # then
    assert "not a whole number" in failure
    assert UsageEvent.objects.count() == 1
    # and: rebuilt, it is acknowledged, and posted no second time
    rebuild.rebuild(client, books.shard, now=desks.at(books.desk.now_ms))
    assert UsageEvent.objects.count() == 1
    assert client.xpending(registers.stream_key(books.desk.tag), "ledger")["pending"] == 0
    assert books.desk.spend_register(cap) == (280_000, 0)
    assert books.check() == {}


def test_a_stream_that_was_lost_with_its_groups_is_read_from_its_beginning(
    neighbours: tuple[Books, int],
) -> None:
    # given
    books, _ = neighbours
    books.desk.client.xgroup_destroy(registers.stream_key(books.desk.tag), "ledger")
    # when
    tasks.drain_usage()
    # then
    assert UsageEvent.objects.count() == 1
    assert books.check() == {}


def test_a_failure_is_recorded_and_raised(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    def away(*_: object, **__: object) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(metering, "drain_all", away)
    # when
    with pytest.raises(redis.ConnectionError):
        tasks.drain_usage()
    # then
    assert TaskRun.objects.get(name=tasks.DRAIN).failure == "ConnectionError: away"


def test_the_sweep_task_expires_by_the_wall_clock(books: Books) -> None:
    # given: a lease of long ago
    books.desk.placed()
    # when
    tasks.expire_holds()
    # then
    assert books.balance().held_pico == 0
    assert len(books.desk.entries()) == 1


def test_the_check_task_records_every_invariant(books: Books) -> None:
    # given
    books.served()
    # when
    tasks.check_invariants()
    # then
    checks = dict(InvariantCheck.objects.values_list("name", "holds"))
    assert set(checks) == {
        *new_rows.PROMISES,
        *invariants.OF_SUMS,
        register_checks.REGISTERS_EQUAL,
        register_checks.WITHIN_CREDIT,
        register_checks.WITHIN_CAPS,
        claims.WITHIN_ASKED,
        findings.AS_SEALED,
        *invariants.REPORTED,
    }
    assert all(checks.values())


def test_a_register_that_drifted_is_found(books: Books) -> None:
    # given
    books.served()
    key = registers.tenant_key(books.desk.tag, books.tenant.pk)
    # when
    books.desk.client.hincrby(key, "spent", 1)
    # then
    wrong = books.check()
    assert wrong == {
        register_checks.REGISTERS_EQUAL: f"{key}: spent 280001000, due 280000000",
    }


def test_a_hold_that_leaked_is_found(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=70)
    key = registers.tenant_key(books.desk.tag, books.tenant.pk)
    # when
    books.desk.client.zrem(registers.leases_key(books.desk.tag), request_id)
    # then
    assert books.check() == {register_checks.REGISTERS_EQUAL: f"{key}: held 70000, open 0"}


def test_the_lag_is_the_age_of_the_oldest_unread_event(books: Books) -> None:
    # given
    books.served()
    (entry_id, _), *_ = books.desk.client.xrange(registers.stream_key(books.desk.tag))
    appended_ms = int(entry_id.partition(b"-")[0])
    # when
    lag_ms = metering.lag_ms(books.desk.client, now=desks.at(appended_ms + 1234))
    books.drain()
    # then
    assert lag_ms == 1234
    assert metering.lag_ms(books.desk.client, now=datetime.now(UTC)) == 0


def test_a_clock_that_runs_ahead_ends_no_open_request(redis_client: redis.Redis) -> None:
    # given
    seconds, _ = redis_client.time()
    ahead = datetime.fromtimestamp(seconds, tz=UTC) + timedelta(hours=1)
    behind = datetime.fromtimestamp(seconds, tz=UTC) - timedelta(hours=1)
    # when / then
    assert abs(expiry.surely_past_ms(redis_client, now=ahead) - seconds * 1000) < 5_000
    assert expiry.surely_past_ms(redis_client, now=behind) == (seconds - 3600) * 1000


def test_what_sessions_cost_is_forgotten_when_they_are_long_over(books: Books) -> None:
    # given: a session by the wall clock of long ago
    books.served(session="s" * 32)
    books.drain()
    assert UsageSession.objects.count() == 1
    # when
    tasks.forget_sessions()
    # then
    assert UsageSession.objects.count() == 0
    assert TaskRun.objects.get(name=tasks.FORGET).failed_at is None
