"""Registers of agents' sessions as Postgres has them, for a rebuild.

A session is over when nobody has called in it for a day; what comes later under the same id is
another one. Their registers need no cap: the running total of a session is told with each answer.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection

from billing import holds, registers
from billing.quota_registers import CapRegister

KEPT: Final = timedelta(milliseconds=registers.SESSION_KEPT_MS)

# A call that begins a day after all before it have ended begins the session anew. The newest
# sessions of each tenant only: more than that never are open at a time.
LIVE: Final = """
    WITH live AS (
        SELECT tenant_id, session_hash, max(occurred_at) AS last FROM billing_usageevent
        WHERE tenant_id = ANY(%(tenants)s) AND occurred_at >= %(since)s AND session_hash <> ''
        GROUP BY 1, 2
    ), counted AS (
        SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY last DESC) AS place FROM live
    ), calls AS (
        SELECT c.tenant_id, c.session_hash, c.last, u.occurred_at,
            CASE WHEN u.state = 'quarantined' THEN u.charged_nano * 1000
                ELSE u.tenant_cost_pico END AS debited_pico,
            max(u.settled_at) OVER (PARTITION BY c.tenant_id, c.session_hash
                ORDER BY u.occurred_at, u.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS before
        FROM counted c JOIN billing_usageevent u
            ON u.tenant_id = c.tenant_id AND u.session_hash = c.session_hash
        WHERE c.place <= %(most)s
    ), parts AS (
        SELECT *, count(*) FILTER (WHERE occurred_at > before + %(kept)s) OVER (
            PARTITION BY tenant_id, session_hash ORDER BY occurred_at) AS part
        FROM calls
    )
    SELECT tenant_id, session_hash, max(last), sum(debited_pico) FROM parts p
    WHERE part = (SELECT max(part) FROM parts q
        WHERE q.tenant_id = p.tenant_id AND q.session_hash = p.session_hash)
    GROUP BY 1, 2
"""


def registers_of(tenant_ids: Sequence[int], now: datetime) -> Iterator[CapRegister]:
    """The registers of the sessions that are not over."""
    if not tenant_ids:
        return
    asked: dict[str, Any] = {
        "tenants": list(tenant_ids),
        "since": now - KEPT,
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
