"""What an answer or a job reads: rows of the tables that grow with use, and how often it asks.

Each statement is run again under EXPLAIN ANALYZE.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import connection
from django.test import Client

from billing import models as money
from gateway.models import ApiKey, Refusal

# Rows come with use, not with customers or with what is sold.
GROWING: Final = (
    money.Transfer, money.CreditGrant, money.Entry, money.UsageEvent, money.AuditEntry, Refusal,
    money.Invoice, money.CreditNote, money.Payment, money.TopUp, money.AdjustmentNote,
    money.ProcessorEvent, money.Claim, money.Finding, money.RefusedSettle, money.CreditAlert,
    money.PriceVersion, money.Payout, ApiKey,
)  # fmt: skip
GROWS: Final = frozenset(model._meta.db_table for model in GROWING)
# More than ten thousand rows, as many as an admin list reaches back, with what is dropped of them.
ROWS_READ_MAX: Final = 25_000
# A table that is this small is best read whole.
SMALL: Final = 1_000
QUERIES_MAX: Final = 40
# The same statement, whatever it asks for: more of it is one for each row.
ASKED_MAX: Final = 3
Statement = tuple[str, Any]


@contextmanager
def statements() -> Iterator[list[Statement]]:
    said: list[Statement] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        said.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield said


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _read_by(statement: Statement) -> Iterator[dict[str, Any]]:
    """The scans of a statement that read a table which grows."""
    sql, params = statement
    if not re.match(r"\s*(SELECT|WITH)\b", sql) or "nextval" in sql:
        return
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", params)
        (found,) = cursor.fetchone()
    plan = json.loads(found) if isinstance(found, str) else found
    yield from (node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") in GROWS)


class Plans:
    """Remembers what it found right: what two answers ask alike is explained once."""

    def __init__(self) -> None:
        self._right: set[str] = set()

    def faults(self, said: Iterable[Statement], *, asked_max: int = ASKED_MAX) -> list[str]:
        said = list(said)
        told = []
        if len(said) > QUERIES_MAX:
            told.append(f"{len(said)} statements, such as {said[-1][0][:200]}")
        often = Counter(sql for sql, _ in said).most_common(1)
        told += [f"{times} times {sql[:300]}" for sql, times in often if times > asked_max]
        for statement in said:
            key = f"{statement[0]}{statement[1]}"
            if key not in self._right:
                wrong = self._wrong_with(statement)
                told += wrong
                self._right |= set() if wrong else {key}
        return told

    def _wrong_with(self, statement: Statement) -> list[str]:
        told = []
        for node in _read_by(statement):
            removed = node.get("Rows Removed by Filter", 0)
            rows = (node["Actual Rows"] + removed) * node["Actual Loops"]
            is_whole = node["Node Type"] == "Seq Scan" and rows > SMALL
            if is_whole or rows > ROWS_READ_MAX:
                told.append(f"{node['Node Type']} of {rows:,.0f}: {statement[0][:600]}")
        return told

    def wrong_with(
        self, client: Client, addresses: Iterable[str], *, asked_max: int = ASKED_MAX
    ) -> dict[str, list[str]]:
        found = {}
        for address in addresses:
            with statements() as said:
                answer = client.get(address)
                if answer.streaming:
                    b"".join(answer)
            assert answer.status_code < 500, address
            if told := self.faults(said, asked_max=asked_max):
                found[address] = told
        return found
