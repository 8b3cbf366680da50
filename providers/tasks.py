"""Celery's side of the providers: each task calls one service, alone, and notes how it went."""

from celery import shared_task

from billing.redis_connection import connection
from providers import checks, in_house, leaderboards, measurements
from providers.task_runs import run_alone

BATCHES_PER_RUN_MAX = 50


@shared_task
def record_measurements() -> None:
    """Take up the usage streams until they are empty, in bounded batches."""
    for _ in range(BATCHES_PER_RUN_MAX):
        if not run_alone(
            "record_measurements", lambda now: measurements.record(connection(), now=now)
        ):
            return


@shared_task
def refresh_leaderboards() -> None:
    run_alone("refresh_leaderboards", lambda now: leaderboards.refresh(now=now))


@shared_task
def check_offers() -> None:
    run_alone("check_offers", lambda now: checks.check_all(now=now))


@shared_task
def publish_in_house_prices() -> None:
    run_alone("publish_in_house_prices", lambda now: in_house.publish_all(now=now))
    run_alone("forget_old_rollups", lambda now: measurements.forget_old(now=now))
