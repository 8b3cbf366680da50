"""Rows that data planes work from, and how these hear that one has changed.

A table that the snapshot reads is a `SnapshotRow`: whatever writes it, a service, a form of the
admin console or a command, raises the snapshot's version in Redis when it commits, once for the
transaction. Nobody has to think of it. SQL by hand is not seen, and there is none.

Losing the signal costs seconds, never truth: data planes reload on a clock of their own too.
"""

import logging
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import redis
from django.db import models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from billing.redis.connection import connection
from billing.registers import SNAPSHOT_VERSION_KEY

log = logging.getLogger(__name__)

Row = TypeVar("Row", bound=models.Model)


class SnapshotQuerySet(models.QuerySet[Row]):
    """Writes of many rows at once, told of once. (`bulk_update` is made of `update`.)"""

    def update(self, **values: Any) -> int:
        changed = super().update(**values)
        if changed:
            _tell(self.model, values)
        return changed

    def delete(self) -> tuple[int, dict[str, int]]:
        done = super().delete()
        if done[0]:
            raise_version()
        return done

    def bulk_create(self, objs: Iterable[Row], *args: Any, **kwargs: Any) -> list[Row]:
        made = super().bulk_create(objs, *args, **kwargs)
        if made:
            raise_version()
        return made


class SnapshotRow(models.Model):
    """What is changed of it reaches every data plane within a second of the commit."""

    # Columns that no data plane reads: what is noted in them often, by heartbeats, tells nobody.
    not_in_snapshot: ClassVar[frozenset[str]] = frozenset()

    objects = SnapshotQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        _tell(type(self), kwargs.get("update_fields"))

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        done = super().delete(*args, **kwargs)
        raise_version()
        return done


def _tell(model: type[models.Model], columns: Iterable[str] | None) -> None:
    """Unless only these columns were written, and no data plane reads them."""
    unread: frozenset[str] = getattr(model, "not_in_snapshot", frozenset())
    if columns is None or not set(columns) <= unread:
        raise_version()


class _Commit:
    """One transaction that changes rows: the first of its hooks to run tells of all of them."""

    told = False

    def tell(self) -> None:
        if self.told:
            return
        self.told = True
        try:
            connection().incr(SNAPSHOT_VERSION_KEY)
        except redis.RedisError:
            log.warning("snapshot signal lost; the data plane reloads on its own clock")


_commits: WeakKeyDictionary[BaseDatabaseWrapper, _Commit] = WeakKeyDictionary()


def raise_version() -> None:
    """Raise the snapshot's version once the current transaction has committed."""
    # The hook is given again for each change, for a savepoint that is rolled back takes its own
    # along; after the first has run, the connection is at another transaction.
    database_now = transaction.get_connection()
    commit = _commits.get(database_now)
    if commit is None or commit.told:
        commit = _commits[database_now] = _Commit()
    transaction.on_commit(commit.tell)
