"""What an answer or a job reads: rows of the tables that grow with use, and how often it asks.

What an answer asked is run again under EXPLAIN ANALYZE. What a job or an action does is so before
it is done, and undone: whether it reads or writes, it finds what it was meant for.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import connection, transaction
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
# Jobs do the same for each tenant: the first few tell of the rest.
EXPLAINED_MAX: Final = 4
READS: Final = re.compile(r"\s*(SELECT|WITH)\b")
WORKS: Final = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
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


def _read_by(statement: Statement) -> list[dict[str, Any]]:
    """The scans of a statement that read a table which grows."""
    sql, params = statement
    if not any(table in sql for table in GROWS):
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", params)
        (found,) = cursor.fetchone()
    plan = json.loads(found) if isinstance(found, str) else found
    nodes = _nodes(plan[0]["Plan"])
    # What is written to is no scan.
    return [n for n in nodes if n.get("Relation Name") in GROWS and "Operation" not in n]


def _wrong_with(statement: Statement) -> list[str]:
    told = []
    for node in _read_by(statement):
        removed = node.get("Rows Removed by Filter", 0)
        rows = (node["Actual Rows"] + removed) * node["Actual Loops"]
        is_whole = node["Node Type"] == "Seq Scan" and rows > SMALL
        if is_whole or rows > ROWS_READ_MAX:
            told.append(f"{node['Node Type']} of {rows:,.0f}: {statement[0][:600]}")
    return told


@contextmanager
def work() -> Iterator[tuple[Counter[str], list[str]]]:
    """How often each statement is run within, and which of them read what no job may."""
    asked: Counter[str] = Counter()
    faults: list[str] = []
    is_looking = False

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal is_looking
        if not is_looking and WORKS.match(sql):
            asked[sql] += 1
            if asked[sql] <= EXPLAINED_MAX and not many and not connection.needs_rollback:
                is_looking = True
                with transaction.atomic():
                    faults.extend(_wrong_with((sql, params)))
                    transaction.set_rollback(True)
                is_looking = False
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        yield asked, faults


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
                is_read = READS.match(statement[0]) and "nextval" not in statement[0]
                wrong = _wrong_with(statement) if is_read else []
                told += wrong
                self._right |= set() if wrong else {key}
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
