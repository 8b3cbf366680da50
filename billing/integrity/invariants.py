"""The promises of the money, checked continuously; the results are shown in the admin console.

Of Postgres each check reads what is new since the last one, and the sums of everything, and seals
new rows; an audit reads all rows that none has read before, and some of the others again. Redis is
compared at one instant per shard, under the shard's lock, so that a difference is one.
"""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import redis
from django.db import connection

from billing import fault_isolation
from billing.books import claims
from billing.integrity import anchors, findings, new_rows, register_checks, row_seals, sealing
from billing.integrity.invariant_statements import OF_SUMS
from billing.invariant_results import report
from billing.models import InvariantCheck

logger = logging.getLogger(__name__)

SHOWN_MAX: Final = 5

# Reported when they break, by whoever sees it; they start out kept.
REPORTED: Final = ("one event, one body", "every event readable")

Results = dict[str, list[str]]  # violations by promise


def check_all(client: redis.Redis, *, now: datetime) -> bool:
    """Check what is new, all sums and all registers, and record each result."""
    with fault_isolation.told_at_the_end():
        found = fault_isolation.each(
            new_rows.PROMISES, lambda name: {name: new_rows.check(name, now=now)}
        )
        found.append({claims.WITHIN_ASKED: claims.undecided()})
        with fault_isolation.apart("seals of new rows"):
            row_seals.seal_new(now=now)
        found.append({findings.AS_SEALED: findings.open_words()})
        return _record([*found, *_check_sums(), *_of_registers(client, now)], now)


def audit(client: redis.Redis, *, now: datetime, everything: bool = False) -> bool:
    """Check the rows and the sums against them, by blocks that `sealing` keeps; `everything`: every
    row there is, at a cost that grows with all of history."""
    with fault_isolation.told_at_the_end():
        rows = fault_isolation.each(
            ["rows"], lambda _: sealing.audit_rows(now=now, everything=everything)
        )
        with fault_isolation.apart("the anchor of the day"):
            # A log that is kept elsewhere keeps it outside the database.
            logger.info("%s", anchors.text(anchors.heads(), now=now))
        holds = _record([*rows, *_check_sums(), *_of_registers(client, now)], now)
        new_rows.note_all_read(now)
        return holds


def _check_sums() -> list[Results]:
    return fault_isolation.each(OF_SUMS, lambda name: {name: _violations(OF_SUMS[name])})


def _of_registers(client: redis.Redis, now: datetime) -> list[Results]:
    return fault_isolation.each(["registers"], lambda _: register_checks.check(client, now=now))


def _record(found: Iterable[Results], now: datetime) -> bool:
    """What could not be looked at stays as it was, and is looked at again from there."""
    results: Results = {}
    for part in found:
        results |= part
    for name, wrong in results.items():
        report(name, not wrong, "; ".join(wrong[:SHOWN_MAX]), now)
    for name in REPORTED:
        InvariantCheck.objects.get_or_create(name=name, defaults={"holds": True, "checked_at": now})
    return not any(results.values())


def _violations(sql: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [" ".join(str(value) for value in row) for row in cursor.fetchall()]
