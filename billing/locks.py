"""Who may work on what: PostgreSQL advisory locks, taken in this order: shard, tenant row, prices.

A drain's lock on its shard outlives transactions, because it commits first and acknowledges after.
It goes with its connection if its owner dies. Data-plane requests take no lock at all.
billing/locking.md has the whole picture.
"""

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, connection

from billing.errors import LockTimeout

SHARD_SPACE = 0x5348
TASK_SPACE = 0x5441
PRICE_SPACE = 0x5052
PAYOUT_SPACE = 0x5041
POLL_S = 0.05


@contextmanager
def shard(number: int, *, wait_s: float = 0) -> Iterator[bool]:
    """Be the only one to drain or rebuild this shard; yields False if another is after `wait_s`."""
    taken = _try_until("SELECT pg_try_advisory_lock(%s, %s)", number, wait_s)
    try:
        yield taken
    finally:
        if taken:
            _unlock(number)


@contextmanager
def shard_or_raise(number: int, *, wait_s: float) -> Iterator[None]:
    with shard(number, wait_s=wait_s) as taken:
        if not taken:
            raise LockTimeout(f"shard {number} has been busy for {wait_s} s")
        yield


def shard_until_commit(number: int, *, wait_s: float) -> None:
    """The same lock for what must be visible before anybody drains on: held by the transaction."""
    if not _try_until("SELECT pg_try_advisory_xact_lock(%s, %s)", number, wait_s):
        raise LockTimeout(f"shard {number} has been busy for {wait_s} s")


def prices_until_commit() -> None:
    """Be the only one to publish prices or to change the rules they follow, until the commit."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [PRICE_SPACE])


def payouts_until_commit() -> None:
    """Be the only one to pay suppliers, until the commit: what is owed is read and taken."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [PAYOUT_SPACE])


def _unlock(number: int) -> None:
    try:
        _execute("SELECT pg_advisory_unlock(%s, %s)", number)
    except DatabaseError:
        # A pool would hand the connection on with the lock in it.
        connection.connection.close()
        raise


def _try_until(sql: str, number: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while not _execute(sql, number):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _execute(sql: str, number: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql, [SHARD_SPACE, number])
        return bool(cursor.fetchone()[0])


def is_only_run(task: str) -> bool:
    """Within a transaction: whether no other process runs this task now."""
    return _run("SELECT pg_try_advisory_xact_lock(%s, %s)", task)


@contextmanager
def alone(task: str) -> Iterator[bool]:
    """The same for a task that commits on its way; yields False where another process runs it."""
    taken = _run("SELECT pg_try_advisory_lock(%s, %s)", task)
    try:
        yield taken
    finally:
        if taken:
            _run("SELECT pg_advisory_unlock(%s, %s)", task)


def _run(sql: str, task: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql, [TASK_SPACE, zlib.crc32(task.encode()) - 2**31])
        return bool(cursor.fetchone()[0])
