"""Serves tenants, shards, sellers one by one: the failure of one keeps no other waiting.

What fails is undone by itself (inside a transaction to its savepoint, else by its own transaction),
kept, and told when all were served: a periodic task then ends as failed and its run names who. What
would fail for everybody ends the round at once: PostgreSQL away, Redis away or not well, or the
task's time over.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, TypeVar

import redis
from billiard.exceptions import SoftTimeLimitExceeded
from django.db import InterfaceError, OperationalError, connection, transaction

from billing.redis.connection import state_of

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Failure = tuple[str, Exception]

NAMED_MAX: Final = 5
ENDS_ALL: Final = (
    SoftTimeLimitExceeded,
    InterfaceError,
)


class SomeFailed(Exception):
    """Everybody was served but these."""

    def __init__(self, failures: list[Failure]) -> None:
        self.failures = failures
        named = "; ".join(
            f"{name}: {type(problem).__name__}: {problem}" for name, problem in failures[:NAMED_MAX]
        )
        more = len(failures) - NAMED_MAX
        super().__init__(named + (f"; and {more} more" if more > 0 else ""))


# Of the round that is under way: a failure deep inside is told by whoever began it.
_round: ContextVar[list[Failure] | None] = ContextVar("failures of this round", default=None)


@contextmanager
def told_at_the_end() -> Iterator[None]:
    """A round: raises SomeFailed at its end if anybody within it could not be served. Within
    another one it is part of that."""
    if _round.get() is not None:
        yield
        return
    failures: list[Failure] = []
    token = _round.set(failures)
    try:
        yield
    finally:
        _round.reset(token)
    if failures:
        raise SomeFailed(failures)


@contextmanager
def apart(name: str) -> Iterator[None]:
    """Serve this one. Outside a round its failure is raised as it is."""
    failures = _round.get()
    with kept(failures, name) if failures is not None else _undone():
        yield


@contextmanager
def kept(failures: list[Failure], name: str) -> Iterator[None]:
    """Serve this one. Its failure is put there, for a caller that has more to do about it: `tell`
    tells of it at the end."""
    try:
        with _undone():
            yield
    except Exception as problem:
        if ends_all(problem):
            raise
        logger.error("%s failed, the others go on", name, exc_info=problem)
        failures.append((name, problem))


def _undone() -> AbstractContextManager[None]:
    return transaction.atomic() if connection.in_atomic_block else nullcontext()


def each(
    items: Iterable[Item], serve: Callable[[Item], Result], *, name: Callable[[Item], str] = str
) -> list[Result]:
    """Serve all of them; what those gave that could be served. Outside a round it is one itself,
    and raises."""
    served = []
    with told_at_the_end():
        for item in items:
            with apart(name(item)):
                served.append(serve(item))
    return served


def tell(failures: Iterable[Failure]) -> None:
    """Failures that were kept are those of the round that is under way, or of one of their own."""
    with told_at_the_end():
        of_round = _round.get()
        assert of_round is not None
        of_round.extend(failures)


def ends_all(problem: Exception) -> bool:
    """Whether the next one would fail of the same."""
    if isinstance(problem, OperationalError):
        # A statement that took too long is its own; a server that is gone is everybody's.
        return not connection.is_usable()
    if isinstance(problem, redis.RedisError):
        return bool(state_of(problem))
    return isinstance(problem, ENDS_ALL)
