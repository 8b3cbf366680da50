"""Celery's side of the providers: each task calls one service, alone, and notes how it went."""

import time

from celery import shared_task

from billing.redis.connection import connection
from providers.boards import leaderboards, measurements
from providers.machines import checks, in_house, lost_calls
from providers.singleton_jobs import run_alone, run_in_turn

RUN_S_MAX = 20.0
RECORD = "providers.tasks.record_measurements"
REFRESH = "providers.tasks.refresh_leaderboards"
CHECK = "providers.tasks.check_offers"
LOST = "providers.tasks.true_up_lost_calls"
PUBLISH = "providers.tasks.publish_in_house_prices"


@shared_task(name=RECORD)
def record_measurements() -> None:
    """Take up what was drained, in bounded batches; what is left is the next run's."""
    until = time.monotonic() + RUN_S_MAX
    while time.monotonic() < until:
        if not run_alone(RECORD, lambda now: measurements.record(now=now)):
            return


@shared_task(name=REFRESH)
def refresh_leaderboards() -> None:
    run_alone(REFRESH, lambda now: leaderboards.refresh(now=now))


@shared_task(name=CHECK)
def check_offers() -> None:
    run_in_turn(
        CHECK,
        {
            "checks": lambda now: checks.check_all(now=now),
            "loads": lambda now: checks.read_loads(now=now),
            "doubts": lambda now: checks.settle_doubts(now=now),
        },
    )


@shared_task(name=LOST)
def true_up_lost_calls() -> None:
    run_in_turn(
        LOST,
        {
            "expired": lambda now: lost_calls.true_up(connection(), now=now),
            "estimates": lambda now: lost_calls.count_estimates(now=now),
        },
    )


@shared_task(name=PUBLISH)
def publish_in_house_prices() -> None:
    """Also forgets old rollups: both are due every few minutes."""
    run_in_turn(
        PUBLISH,
        {
            "prices": lambda now: in_house.publish_all(now=now),
            "old rollups": lambda now: measurements.forget_old(now=now),
        },
    )
