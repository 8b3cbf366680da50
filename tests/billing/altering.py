"""What the database's owner does to rows of money in a test, past every trigger."""

import json
from collections.abc import Mapping
from typing import Any

from django.db import connection


def execute(table: str, *statements: str) -> None:
    """As an owner may: no trigger of ours is asked."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        for sql in statements:
            cursor.execute(sql)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def copy_of(table: str, row_id: int, said: Mapping[str, Any]) -> str:
    """Puts in a row that says what another does, but for this."""
    return (
        f"INSERT INTO {table} SELECT (jsonb_populate_record(r, '{json.dumps(said)}')).*"
        f" FROM {table} r WHERE id = {row_id}"
    )


def swap_rows(table: str, one: int, other: int) -> None:
    steps = ((one, -1), (other, one), (-1, other))
    execute(table, *(f"UPDATE {table} SET id = {new} WHERE id = {old}" for old, new in steps))
