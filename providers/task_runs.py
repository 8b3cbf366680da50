"""Runs a periodic job at most once at a time, and notes how it went for the admin console.

The lock is PostgreSQL's, held for the job's transaction: a second runner goes home at once.
"""

import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from django.db import connection, transaction
from django.utils import timezone

from billing.models import TaskRun

FAILURE_LENGTH_MAX = 400
Result = TypeVar("Result")


def run_alone(name: str, job: Callable[[datetime], Result]) -> Result | None:
    """Run `job` with the time it starts at; None where another process is at it."""
    started = timezone.now()
    try:
        with transaction.atomic():
            if not _locked(name):
                return None
            result = job(started)
    except Exception as failure:
        _note(name, started, failure=f"{type(failure).__name__}: {failure}")
        raise
    _note(name, started, failure=None)
    return result


def _locked(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [0x7A5C, _number(name)])
        return bool(cursor.fetchone()[0])


def _number(name: str) -> int:
    """A signed 32-bit number for a name, the same in every process."""
    number = zlib.crc32(name.encode())
    return number - 2**32 if number >= 2**31 else number


def _note(name: str, started: datetime, *, failure: str | None) -> None:
    noted: dict[str, Any] = {"started_at": started, "finished_at": timezone.now()}
    if failure is not None:
        noted |= {"failed_at": started, "failure": failure[:FAILURE_LENGTH_MAX]}
    TaskRun.objects.update_or_create(name=name, defaults=noted)
