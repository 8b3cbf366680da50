"""Tells every data plane process that what it routes by has changed.

A counter in Redis, raised after commit. Losing a signal costs seconds, never truth: the data
plane reloads from Postgres on its own clock too.
"""

import logging
from functools import lru_cache

import redis
from django.conf import settings
from django.db import transaction

VERSION_KEY = "snapshot:version"
SOCKET_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def connection() -> redis.Redis:
    """The console side's connection pool; the hot path has its own."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=SOCKET_TIMEOUT_S)


def bump() -> None:
    """Raise the snapshot's version once the current transaction has committed."""
    transaction.on_commit(_raise_version)


def _raise_version() -> None:
    try:
        connection().incr(VERSION_KEY)
    except redis.RedisError:
        log.warning("snapshot signal lost; the data plane reloads on its own clock")
