"""Usage events as they were written, in the order of their ids: for who counts each one once.

A reader keeps its own position and asks when it likes. It holds nobody up: not the drain, whose
stream it does not read, and what it has not come to yet waits for it here.
"""

from typing import Any, Final, NamedTuple

import msgspec
from django.db import connection

from billing.books import commit_order
from billing.events import AttemptDetail, decode_detail
from billing.models import UsageEvent

# For batches of a drain that are under way; where it is not enough, the next run reads on.
WAIT_S: Final = 2.0
# What an attempt used counts where it was posted as it was counted: not what is in review, nor what
# a person decided. That it was made, and how it went, counts at once. A settle that came after the
# expiry of its hold is the same attempt again, and only what the expiry did not count is new.
COUNTED: Final = f"{{0}}.state = '{UsageEvent.State.POSTED}' AND {{0}}.quarantine_reason = ''"
READ: Final = f"""
    WITH found AS MATERIALIZED (
        SELECT *, {COUNTED.format("u")} AS is_counted FROM billing_usageevent u
        WHERE id > %s AND id <= %s ORDER BY id LIMIT %s
    )
    SELECT u.id, u.offer_id, u.tenant_id, u.outcome,
        (extract(epoch FROM u.occurred_at) * 1000)::bigint,
        u.is_counted, expired.attempt IS NOT NULL,
        CASE WHEN u.is_counted THEN u.input_tokens ELSE 0 END,
        CASE WHEN u.is_counted THEN u.cache_read_tokens ELSE 0 END,
        CASE WHEN u.is_counted THEN u.output_tokens ELSE 0 END,
        CASE WHEN u.is_counted THEN coalesce(expired.output_tokens, 0) ELSE 0 END,
        CASE WHEN u.is_counted THEN u.tenant_cost_pico ELSE 0 END,
        (CASE jsonb_typeof(u.detail) WHEN 'object' THEN u.detail - 'ranking' ELSE '{{}}' END)::text
    FROM found u LEFT JOIN LATERAL (
        SELECT e.attempt, CASE WHEN {COUNTED.format("e")} THEN e.output_tokens ELSE 0 END
            AS output_tokens
        FROM billing_usageevent e
        WHERE u.attempt >= 0 AND e.request_id = u.request_id AND e.attempt = -u.attempt - 1
            AND e.day = u.day
        LIMIT 1
    ) expired ON true
    ORDER BY u.id
"""
NOTHING_SAID: Final = AttemptDetail()


class Attempt(NamedTuple):
    """What was made of one attempt. Tokens and cost are 0 unless they are counted, and `expired_`
    is what the expiry of the same attempt, `is_again`, has counted of them before. `detail` says
    nothing where it could not be read."""

    id: int
    offer: int
    tenant: int
    outcome: str
    occurred_ms: int
    is_counted: bool
    is_again: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    expired_output_tokens: int
    cost_pico: int
    detail: AttemptDetail


def after(position: int, *, most: int) -> list[Attempt]:
    """The attempts behind that id, at most so many; none where they are still being written."""
    newest = commit_order.upto(UsageEvent._meta.db_table, wait_s=WAIT_S)
    if newest is None or newest <= position:
        return []
    with connection.cursor() as cursor:
        cursor.execute(READ, [position, newest, most])
        return [_attempt(*row) for row in cursor.fetchall()]


def _attempt(event_id: int, offer: int | None, *facts: Any) -> Attempt:
    try:
        detail = decode_detail(facts[-1])
    except msgspec.MsgspecError:
        detail = NOTHING_SAID
    return Attempt._make((event_id, offer or 0, *facts[:-1], detail))
