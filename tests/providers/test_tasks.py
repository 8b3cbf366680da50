"""Periodic tasks run alone, and their last run and failure are noted."""

import psycopg
import pytest
import redis
from django.db import connection as database

from billing.drain import metering
from billing.models import TaskRun
from gateway import tasks as gateway_tasks
from gateway.celery import CLOCKWORK
from providers import tasks
from providers.boards import leaderboards
from providers.models import Leaderboard, MeasurementRollup
from providers.singleton_jobs import run_alone
from tests.providers.made_offers import attempt, make_offer, post

pytestmark = pytest.mark.django_db(transaction=True)
JOB = "tests.job"


def test_a_job_that_runs_elsewhere_is_left_to_it() -> None:
    # given
    ran = []
    with psycopg.connect(**_parameters()) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_xact_lock(%s, %s)", _lock())

        # when
        result = run_alone(JOB, ran.append)

    # then
    assert result is None
    assert ran == []
    assert run_alone(JOB, lambda now: "done") == "done"


def _parameters() -> dict[str, str]:
    named = database.get_connection_params()
    return {key: named[key] for key in ("host", "user", "dbname") if named.get(key)}


def _lock() -> tuple[int, int]:
    """The key that `locks.is_only_run` takes, read from PostgreSQL while a job holds it."""
    held: list[tuple[int, int]] = []

    def look(_: object) -> None:
        with database.cursor() as cursor:
            cursor.execute(
                "SELECT classid::bigint::int, objid::bigint::bit(32)::int FROM pg_locks "
                "WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            )
            held.extend(cursor.fetchall())

    run_alone(JOB, look)
    (key,) = held
    return key


def test_a_failure_is_noted_and_raised() -> None:
    # when
    with pytest.raises(ZeroDivisionError):
        run_alone(JOB, lambda now: 1 // 0)

    # then
    noted = TaskRun.objects.get(name=JOB)
    assert noted.failure.startswith("ZeroDivisionError")
    assert noted.failed_at is not None


def test_events_reach_the_boards_through_the_tasks(redis_client: redis.Redis) -> None:
    # given
    metering.ensure_groups(redis_client)
    post(attempt(make_offer()))

    # when
    tasks.record_measurements()
    tasks.refresh_leaderboards()

    # then
    assert MeasurementRollup.objects.count() == 3
    assert Leaderboard.objects.count() == len(leaderboards.WINDOWS)


def test_every_task_of_the_clockwork_leaves_a_note(redis_client: redis.Redis) -> None:
    # given
    metering.ensure_groups(redis_client)

    # when
    for task in (
        tasks.record_measurements,
        tasks.refresh_leaderboards,
        tasks.check_offers,
        tasks.publish_in_house_prices,
        tasks.true_up_lost_calls,
        gateway_tasks.record_refusals,
        gateway_tasks.recharge_credit,
        gateway_tasks.tell_of_budgets,
        gateway_tasks.read_price_sources,
        gateway_tasks.forget_old,
    ):
        task()

    # then
    ours = {name for name in CLOCKWORK if not name.startswith("billing.")}
    assert set(TaskRun.objects.values_list("name", flat=True)) == ours
