"""What rows of money that may change have said, and whether each says what it said last.

A trigger keeps every version of a row (`RowVersion`), in the transaction of its change; versions
are sealed as all rows of money are (`row_kinds`). An audit holds rows against their last version:
one that was changed, put in or taken out past the triggers is a finding, named by what changed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection

from billing.integrity import findings
from billing.models import Finding

AUDITS_PER_ROUND: Final = 30
# Every audit reads the rows whose versions are new, and so many of the newest in any case.
NEW: Final = timedelta(hours=25)
NEWEST_ROWS: Final = 10_000
FOUND_MAX: Final = 500
VALUE_LENGTH_MAX: Final = 60

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """A table whose rows may change, and its columns that are no facts of money."""

    table: str
    without: tuple[str, ...] = ()


# Migrations make the triggers: 0056 has the same list.
KEPT: Final[Mapping[str, Kept]] = {
    "purchases of credit": Kept("billing_topup", ("tries", "due_at")),
    "disputes": Kept("billing_dispute"),
    "sellers' claims": Kept("billing_claim"),
    "prices": Kept("billing_priceversion"),
    "discounts and margins": Kept("billing_pricerule"),
    "price lists": Kept("billing_pricelist"),
    "plans of tenants": Kept("billing_planassignment"),
    "rates of bills": Kept("billing_billrate"),
    "billing profiles": Kept(
        "billing_billingprofile", ("legal_name", "address", "email", "reference")
    ),
    "terms of tenants": Kept("billing_tenant", ("credit_version",)),
    "numbers of documents": Kept("billing_numberseries"),
}


def compare(*, now: datetime, everything: bool = False) -> None:
    """Hold this audit's share of all rows against what they said last."""
    for what, kept in KEPT.items():
        for row_id, said, says in _apart(kept, now, everything):
            findings.record(what, row_id, row_id + 1, _in_words(said, says), now)


def keep_present(finding: Finding) -> None:
    """What the row of a resolved finding says now is what it has to say from now on."""
    kept = KEPT[finding.what]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_rowversion (table_name, row_id, facts, kept_at)"
            f" SELECT %(table)s, %(id)s, (SELECT billing_facts_of(r, %(without)s)"
            f" FROM {kept.table} r WHERE r.id = %(id)s), now()",
            {"table": kept.table, "id": finding.first, "without": list(kept.without)},
        )


def _apart(
    kept: Kept, now: datetime, everything: bool
) -> Iterator[tuple[int, Facts | None, Facts | None]]:
    """Rows that do not say what they said last: said and says, None where there is no such row. A
    column that a later version of the program adds or drops makes no difference."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH recent AS (
                SELECT row_id FROM billing_rowversion
                WHERE table_name = %(table)s AND kept_at > %(new)s
            ), said AS (
                SELECT DISTINCT ON (v.row_id) v.row_id AS id, v.facts FROM billing_rowversion v
                WHERE table_name = %(table)s AND {_due("v.row_id", kept.table)}
                ORDER BY v.row_id, v.id DESC
            ), says AS (
                SELECT r.id, billing_facts_of(r, %(without)s) AS facts
                FROM {kept.table} r WHERE {_due("r.id", kept.table)}
            )
            SELECT id, said.facts::text, says.facts::text FROM said FULL JOIN says USING (id)
            WHERE (said.facts IS NULL) <> (says.facts IS NULL) OR EXISTS (
                SELECT FROM jsonb_each(said.facts) fact
                WHERE says.facts ? fact.key AND says.facts -> fact.key <> fact.value)
            ORDER BY id LIMIT {FOUND_MAX}
            """,
            {
                "table": kept.table,
                "without": list(kept.without),
                "new": now - NEW,
                "all": everything,
                "turn": now.toordinal() % AUDITS_PER_ROUND,
            },
        )
        for row_id, said, says in cursor.fetchall():
            yield row_id, json.loads(said or "null"), json.loads(says or "null")


def _due(column: str, table: str) -> str:
    return f"""(%(all)s OR {column} %% {AUDITS_PER_ROUND} = %(turn)s
        OR {column} > (SELECT coalesce(max(id), 0) - {NEWEST_ROWS} FROM {table})
        OR {column} IN (SELECT row_id FROM recent))"""


def _in_words(said: Facts | None, says: Facts | None) -> str:
    if says is None:
        return "taken out past its record"
    if said is None:
        return "put in past its record"
    return "; ".join(
        f"{name} is {_short(says[name])}, on record {_short(value)}"
        for name, value in said.items()
        if name in says and says[name] != value
    )


def _short(value: Any) -> str:
    return json.dumps(value)[:VALUE_LENGTH_MAX]
