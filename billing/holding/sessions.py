"""Registers of agents' sessions as Postgres has them, for a rebuild.

A session is over when nobody has called in it for a day; what comes later under the same id is
another one. Their registers need no cap: the running total of a session is told with each answer.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

from django.db import connection

from billing import registers
from billing.holding import holds
from billing.holding.quota_registers import CapRegister

KEPT: Final = timedelta(milliseconds=registers.SESSION_KEPT_MS)
# The sums of a session that is over: for events that are drained or resolved late.
FORGOTTEN_AFTER: Final = timedelta(days=7)
FORGOTTEN_AT_ONCE: Final = 10_000
BATCHES_PER_RUN_MAX: Final = 100

# A call that begins a day after all before it have ended begins the session anew. Calls of one day
# are never that far apart, so a session is cut between days or not at all. The newest sessions of
# each tenant only: more than that never are open at a time.
LIVE: Final = """
    WITH live AS (
        SELECT tenant_id, session_hash, max(last_at) AS last, row_number() OVER (
            PARTITION BY tenant_id ORDER BY max(last_at) DESC, session_hash) AS place
        FROM billing_usagesession
        WHERE tenant_id = ANY(%(tenants)s) AND day >= %(day)s AND last_at >= %(since)s
        GROUP BY 1, 2
    ), days AS (
        SELECT d.*, live.last, max(d.ended_at) OVER (
            PARTITION BY d.tenant_id, d.session_hash ORDER BY d.day
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ended_before
        FROM live JOIN billing_usagesession d USING (tenant_id, session_hash)
        WHERE live.place <= %(most)s
    ), parts AS (
        SELECT *, count(*) FILTER (WHERE first_at > ended_before + %(kept)s) OVER (
            PARTITION BY tenant_id, session_hash ORDER BY day) AS part
        FROM days
    ), ranked AS (
        SELECT *, max(part) OVER (PARTITION BY tenant_id, session_hash) AS newest FROM parts
    )
    SELECT tenant_id, session_hash, last, sum(debited_pico) FROM ranked
    WHERE part = newest GROUP BY 1, 2, 3
"""
FORGET: Final = """
    DELETE FROM billing_usagesession WHERE (tenant_id, session_hash) IN (
        SELECT tenant_id, session_hash FROM billing_usagesession old
        WHERE day < %(day)s AND NOT EXISTS (
            SELECT FROM billing_usagesession new WHERE new.tenant_id = old.tenant_id
                AND new.session_hash = old.session_hash AND new.day >= %(day)s)
        LIMIT %(most)s
    )
"""


def registers_of(tenant_ids: Sequence[int], now: datetime) -> Iterator[CapRegister]:
    """The registers of the sessions that are not over."""
    if not tenant_ids:
        return
    since = now - KEPT
    asked: dict[str, Any] = {
        "tenants": list(tenant_ids),
        "since": since,
        "day": since.date(),
        "kept": KEPT,
        "most": holds.SESSIONS_MAX,
    }
    with connection.cursor() as cursor:
        cursor.execute(LIVE, asked)
        for tenant_id, session, last, spent_pico in cursor.fetchall():
            key = registers.spend_key(
                registers.shard_tag(tenant_id),
                tenant_id,
                kind=registers.SESSION,
                scope=session,
                bucket=registers.SESSION,
            )
            lasts_ms = (last + KEPT - now) // timedelta(milliseconds=1)
            yield CapRegister(key, int(spent_pico), max(lasts_ms, 1))


def forget_over(*, now: datetime) -> int:
    """Delete the sums of sessions that nobody has called in for a week, in bounded batches; returns
    how many rows went. A session that goes on keeps all its days."""
    forgotten_day = (now - FORGOTTEN_AFTER).date()
    asked: dict[str, date | int] = {"day": forgotten_day, "most": FORGOTTEN_AT_ONCE}
    forgotten = 0
    for _ in range(BATCHES_PER_RUN_MAX):
        with connection.cursor() as cursor:
            cursor.execute(FORGET, asked)
            forgotten += cursor.rowcount
            if not cursor.rowcount:
                break
    return forgotten
