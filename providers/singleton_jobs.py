"""Runs a periodic job at most once at a time; how it went is noted for the admin console.

The lock is PostgreSQL's, held for the job's transaction: a second runner goes home at once.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from django.db import transaction

from billing import fault_isolation, locks
from billing.operations import task_runs

Result = TypeVar("Result")


def run_alone(name: str, job: Callable[[datetime], Result]) -> Result | None:
    """Run `job` with the time it starts at; None where another process is at it."""
    with task_runs.recorded(name) as now:
        return _alone(name, job, now)


def run_in_turn(name: str, jobs: Mapping[str, Callable[[datetime], object]]) -> None:
    """Run each alone, and those behind one that failed as well."""
    with task_runs.recorded(name) as now:
        fault_isolation.each(jobs, lambda each: _alone(name, jobs[each], now))


def _alone(name: str, job: Callable[[datetime], Result], now: datetime) -> Result | None:
    with transaction.atomic():
        return job(now) if locks.is_only_run(name) else None
