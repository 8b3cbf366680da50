"""The periodic tasks, run as Celery runs them, against the real servers."""

from datetime import UTC, datetime

import pytest
import redis

from billing import invariants, metering, registers, tasks
from billing.models import InvariantCheck, ShardEpoch, TaskRun, UsageEvent
from tests.billing import desk as desks
from tests.billing.books import Books


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
        *invariants.OF_NEW_ROWS,
        *invariants.OF_SUMS,
        invariants.REGISTERS_EQUAL,
        invariants.WITHIN_CREDIT,
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
        invariants.REGISTERS_EQUAL: f"{key}: spent 280001000, due 280000000",
    }


def test_a_hold_that_leaked_is_found(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=70)
    key = registers.tenant_key(books.desk.tag, books.tenant.pk)
    # when
    books.desk.client.zrem(registers.leases_key(books.desk.tag), request_id)
    # then
    assert books.check() == {invariants.REGISTERS_EQUAL: f"{key}: held 70000, open 0"}


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
