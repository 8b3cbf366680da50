"""Usage events as they were written, in the order of their ids: for who counts each one once.

A reader keeps its own position and asks when it likes. It holds nobody up: not the drain, whose
stream it does not read, and what it has not come to yet waits for it here.
"""

from typing import Any, Final, NamedTuple

import msgspec
from django.db import connection

from billing import written
from billing.events import AttemptDetail, decode_detail
from billing.models import UsageEvent

# For batches of a drain that are under way; where it is not enough, the next run reads on.
WAIT_S: Final = 2.0
# What an attempt used counts once it is posted; that it was made, and how it went, at once.
READ: Final = f"""
    SELECT id, offer_id, outcome, (extract(epoch FROM occurred_at) * 1000)::bigint,
        CASE state WHEN '{UsageEvent.State.POSTED}' THEN input_tokens ELSE 0 END,
        CASE state WHEN '{UsageEvent.State.POSTED}' THEN cache_read_tokens ELSE 0 END,
        CASE state WHEN '{UsageEvent.State.POSTED}' THEN output_tokens ELSE 0 END,
        tenant_cost_pico,
        (CASE jsonb_typeof(detail) WHEN 'object' THEN detail - 'ranking' ELSE '{{}}' END)::text
    FROM billing_usageevent WHERE id > %s AND id <= %s ORDER BY id LIMIT %s
"""
NOTHING_SAID: Final = AttemptDetail()


class Attempt(NamedTuple):
    """What was made of one attempt. `detail` says nothing where it could not be read."""

    id: int
    offer: int
    outcome: str
    occurred_ms: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_pico: int
    detail: AttemptDetail


def after(position: int, *, most: int) -> list[Attempt]:
    """The attempts behind that id, at most so many; none where they are still being written."""
    newest = written.upto(UsageEvent._meta.db_table, wait_s=WAIT_S)
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
