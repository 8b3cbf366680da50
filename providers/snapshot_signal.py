"""Tells every data plane process that what it routes by has changed.

A counter in Redis, raised after commit. Losing a signal costs seconds, never truth: the data
plane reloads from Postgres on its own clock too.
"""

import logging

import redis
from django.db import transaction

from billing.redis.connection import connection

VERSION_KEY = "snapshot:version"

log = logging.getLogger(__name__)


def bump() -> None:
    """Raise the snapshot's version once the current transaction has committed."""
    transaction.on_commit(_raise_version)


def _raise_version() -> None:
    try:
        connection().incr(VERSION_KEY)
    except redis.RedisError:
        log.warning("snapshot signal lost; the data plane reloads on its own clock")
