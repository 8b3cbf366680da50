"""Billing's own connection to Redis, for services and tasks; the hot path has another."""

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import redis
from django.conf import settings
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

from billing.errors import Cold
from billing.redis import error_replies as redis_refusals
from billing.redis.scripts import COLD, Call

SOCKET_TIMEOUT_S = 10.0

Reply = list[bytes]

# The client takes Redis' own word from the text of these.
_OF_ITS_STATE = (
    redis.ConnectionError,
    redis.TimeoutError,
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)


@lru_cache(maxsize=1)
def connection() -> redis.Redis:
    """One pool per process."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=SOCKET_TIMEOUT_S)


def run(client: redis.Redis, call: Call) -> Reply:
    """EVALSHA; a script that Redis has forgotten is loaded and called once more."""
    try:
        return _evaluate(client, call)
    except NoScriptError:
        client.script_load(call.script.source)
        return _evaluate(client, call)


def _evaluate(client: redis.Redis, call: Call) -> Reply:
    keys_and_args = cast(Sequence[str], [*call.keys, *call.args])
    return cast(Reply, client.evalsha(call.script.sha1, len(call.keys), *keys_and_args))


def run_warm(client: redis.Redis, call: Call) -> Reply:
    """The same; Cold where the shard does not know its epoch."""
    reply = run(client, call)
    if COLD.is_said(reply):
        raise Cold(f"{call.script.name}: the shard does not know its epoch")
    return reply


def state_of(problem: redis.RedisError) -> str:
    """What is the matter with Redis itself; empty where it refused what was asked."""
    if isinstance(problem, _OF_ITS_STATE):
        return str(problem) or type(problem).__name__
    return redis_refusals.state_of(str(problem))
