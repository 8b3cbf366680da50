"""Records the latest run of each periodic task, and its last failure, for the admin console."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from billing import fault_isolation
from billing.models import TaskRun


@contextmanager
def recorded(name: str) -> Iterator[datetime]:
    """Note when a task began, ended, and failed; yields its start. Failures go on upward, those of
    single tenants, shards or sellers once all others were served."""
    started_at = datetime.now(UTC)
    try:
        with fault_isolation.told_at_the_end():
            yield started_at
    except Exception as problem:
        finished_at = datetime.now(UTC)
        failure = f"{type(problem).__name__}: {problem}"[:400]
        _write(name, started_at, finished_at, failed_at=finished_at, failure=failure)
        raise
    _write(name, started_at, datetime.now(UTC))


def _write(name: str, started_at: datetime, finished_at: datetime, **failure: object) -> None:
    facts = {"started_at": started_at, "finished_at": finished_at, **failure}
    TaskRun.objects.update_or_create(name=name, defaults=facts)


def note_lag(name: str, lag_ms: int) -> None:
    """How far behind its input the task is."""
    TaskRun.objects.filter(name=name).update(lag_ms=max(lag_ms, 0))
