"""Rows in the order of their ids, for readers that keep a position: none is passed over.

Ids are given out before their rows are committed, and not committed in their order. Whoever takes
an id holds a lock on its table from before: once all who held one are through, every row up to the
newest id is written, or never will be. Nobody is held up by who waits here.
"""

import time
from typing import Any, Final

from django.db import connection

POLL_S: Final = 0.02


def upto(table: str, *, wait_s: float) -> int | None:
    """The newest id, once every row up to it is written; None where that takes longer."""
    deadline = time.monotonic() + wait_s
    newest = int(_rows(f"SELECT max(id) FROM {table}")[0][0] or 0)
    writing = _writing(table)
    while writing:
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)
        writing &= _writing(table)
    return newest


def _writing(table: str) -> set[str]:
    """The other transactions that write to the table now: one sees what it wrote itself."""
    found = _rows(
        "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted"
        " AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        f" AND relation = '{table}'::regclass AND mode = 'RowExclusiveLock'"
    )
    return {str(row[0]) for row in found}


def _rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
