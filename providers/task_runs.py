"""Runs a periodic job at most once at a time, and notes how it went for the admin console.

The lock is PostgreSQL's, held for the job's transaction: a second runner goes home at once.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from django.db import transaction
from django.utils import timezone

from billing import locks
from billing.models import TaskRun

FAILURE_LENGTH_MAX = 400
Result = TypeVar("Result")


def run_alone(name: str, job: Callable[[datetime], Result]) -> Result | None:
    """Run `job` with the time it starts at; None where another process is at it."""
    started = timezone.now()
    try:
        with transaction.atomic():
            if not locks.is_only_run(name):
                return None
            result = job(started)
    except Exception as failure:
        _note(name, started, failure=f"{type(failure).__name__}: {failure}")
        raise
    _note(name, started, failure=None)
    return result


def _note(name: str, started: datetime, *, failure: str | None) -> None:
    noted: dict[str, Any] = {"started_at": started, "finished_at": timezone.now()}
    if failure is not None:
        noted |= {"failed_at": started, "failure": failure[:FAILURE_LENGTH_MAX]}
    TaskRun.objects.update_or_create(name=name, defaults=noted)
