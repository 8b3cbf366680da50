"""Time limits of PostgreSQL: connections give up a server which says nothing at all.

The server's own timeouts end a slow statement. A server, or a middlebox before it, that takes what
is sent and stays silent would block the thread that asked until TCP gives up, or for good.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import Connection, OperationalError, errors
from psycopg.abc import RV, PQGen

# Between looks at whether the wait has ended otherwise, as psycopg's own.
LOOK_EVERY_S = 0.1


class TimeLimitedConnection(Connection):
    """Closed, with OperationalError, once an answer takes longer than `answer_timeout_s`."""

    answer_timeout_s: float | None = None

    def wait(
        self, gen: PQGen[RV], interval: float = LOOK_EVERY_S, timeout: float | None = None
    ) -> RV:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.answer_timeout_s)
        except errors._WaitTimeout:
            # What comes late would be taken for the answer to the next question.
            self.pgconn.finish()
            raise OperationalError(
                f"PostgreSQL said nothing for {self.answer_timeout_s:g} s"
            ) from None


def limited_to(answer_timeout_s: float) -> type[TimeLimitedConnection]:
    """The class of connections that wait so long."""
    return type("BoundConnection", (TimeLimitedConnection,), {"answer_timeout_s": answer_timeout_s})


@contextmanager
def unlimited(database: BaseDatabaseWrapper) -> Iterator[None]:
    """For work that nobody waits for: statements end when they are done. Waits for locks stay
    short."""
    database.ensure_connection()
    connection = database.connection
    with database.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
    if isinstance(connection, TimeLimitedConnection):
        connection.answer_timeout_s = None
    try:
        yield
    finally:
        if isinstance(connection, TimeLimitedConnection):
            del connection.answer_timeout_s
        with database.cursor() as cursor:
            cursor.execute("RESET statement_timeout")
