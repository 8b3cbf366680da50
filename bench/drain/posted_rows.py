"""Events as the drain would have posted them, written by SQL, a share of the tenants at a time.

Needs no model, so that a process of its own can import it before Django is ready.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import django
from django.db import connection, transaction

from gateway.database import time_limits

WRITES_PER_S: Final = 5
# Enough for every tenant to have some: a transfer of nothing is refused.
WRITTEN_AT_ONCE: Final = 400

# A transfer per tenant and chunk, its events, and the entries that the drain's postings make.
TRANSFERS: Final = """
    CREATE TEMPORARY TABLE IF NOT EXISTS batch (tenant_id bigint, transfer_id bigint);
    TRUNCATE batch;
    WITH made AS (
        INSERT INTO billing_transfer (code, tenant_id, memo, idempotency_key, created_at)
        SELECT 'usage', tenant, '', 'past:' || %(first)s || ':' || tenant, %(until)s
        FROM unnest(%(share)s::bigint[]) tenant RETURNING tenant_id, id
    ) INSERT INTO batch SELECT * FROM made;
"""
EVENTS: Final = """
    INSERT INTO billing_usageevent (request_id, attempt, day, body_hash, tenant_id, api_key_id,
        team_id, offer_id, input_tokens, cache_read_tokens, cache_write_5m_tokens,
        cache_write_1h_tokens, input_audio_tokens, input_image_tokens, output_tokens,
        reasoning_tokens, output_audio_tokens, rated_pico, tenant_cost_pico, supplier_cost_pico,
        overage_pico, hold_nano, charged_nano, occurred_at, settled_at, drained_at,
        price_version_id, transfer_id, session_hash, sku, supplier, model, outcome, usage_source,
        state, quarantine_reason, stream_id, detail)
    SELECT id::uuid, 1, billing_day_of(id::uuid), sha256(convert_to(id, 'UTF8')), e.tenant_id,
        e.tenant_id * 100 + number %% 5, e.tenant_id * 50 + number %% 2, place,
        1000 + number %% 500, number %% 3 * 100, 0, 0, 0, 0, 200 + number %% 100, 0, 0,
        cost, cost, cost * 9 / 10, 0, cost / 500, cost / 1000, at, at + interval '1 second', at,
        (%(versions)s::bigint[])[place], batch.transfer_id, '', (%(skus)s::text[])[place],
        split_part((%(skus)s::text[])[place], '/', 1),
        split_part((%(skus)s::text[])[place], '/', 2), 'ok', 'provider', 'posted', '',
        number || '-0', '{"surface": "openai_chat", "status": 200, "ttft_ms": 212.4}'
    FROM (
        SELECT number, at, (100000 + number %% 900) * 1000::bigint AS cost,
            -- Every other event is of the first tenant: the busiest has half of all.
            (%(tenants)s::bigint[])[CASE number %% 2 WHEN 0 THEN 1
                ELSE 1 + (number / 2) %% cardinality(%(tenants)s::bigint[]) END] AS tenant_id,
            1 + (number * 7 + number / 11) %% cardinality(%(skus)s::text[]) AS place,
            lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
                || substr(noise, 1, 3) || '8' || substr(noise, 4, 15) AS id
        FROM (
            SELECT number, md5(number::text) AS noise,
                %(began)s::timestamptz + number * %(per_event)s::interval AS at
            FROM generate_series(%(first)s::bigint, %(first)s + %(count)s - 1) number
        ) n
    ) e JOIN batch ON batch.tenant_id = e.tenant_id
"""
ENTRIES: Final = """
    INSERT INTO billing_entry (transfer_id, account_id, amount_pico)
    SELECT transfer_id, a.id, sum(sign * amount) FROM (
        SELECT u.transfer_id, leg.kind, leg.tenant_id, leg.supplier, leg.sign, leg.amount
        FROM billing_usageevent u CROSS JOIN LATERAL (VALUES
            ('tenant_credit', u.tenant_id, '', 1, u.tenant_cost_pico),
            ('revenue', NULL, '', -1, u.tenant_cost_pico),
            ('cost_of_sales', NULL, u.supplier, 1, u.supplier_cost_pico),
            ('provider_payable', NULL, u.supplier, -1, u.supplier_cost_pico)
        ) leg (kind, tenant_id, supplier, sign, amount)
        -- By the index, however large the table: a join with `batch` was planned as a whole scan.
        WHERE u.transfer_id = ANY (ARRAY(SELECT transfer_id FROM batch))
    ) legs JOIN billing_account a ON a.kind = legs.kind AND a.supplier = legs.supplier
        AND a.tenant_id IS NOT DISTINCT FROM legs.tenant_id
    GROUP BY transfer_id, a.id
"""


@dataclass(frozen=True, slots=True)
class House:
    """Who buys what, at which price versions; the first tenant is the busiest."""

    tenants: tuple[int, ...]
    skus: tuple[str, ...]
    versions: tuple[int, ...]
    username: str


def house_terms(house: House) -> dict[str, Any]:
    return {
        "tenants": list(house.tenants),
        "skus": list(house.skus),
        "versions": list(house.versions),
    }


def write(
    house: House,
    share: Sequence[int],
    *,
    first: int,
    count: int,
    began: datetime,
    per_event: timedelta,
) -> None:
    """Post what a share of the tenants has of `count` events beside each other in time, one
    transfer per tenant."""
    arguments = house_terms(house) | {"share": list(share)}
    arguments |= {"first": first, "count": count, "began": began, "per_event": per_event}
    arguments["until"] = began + (first + count) * per_event
    # A drain writes a tenth of a chunk or less in a statement: its limit is not this one's.
    own_time = time_limits.unlimited(connection)
    with own_time, transaction.atomic(), connection.cursor() as cursor:
        for statement in (TRANSFERS, EVENTS, ENTRIES):
            cursor.execute(statement, arguments)


def keep_writing(house: House, stop: Any, worst: Any) -> None:
    """Post small batches at a steady pace, in a process of its own; keep the longest write."""
    django.setup()
    number = int(time.time() * 1000)
    while not stop.is_set():
        began = time.perf_counter()
        write(
            house,
            house.tenants,
            first=number,
            count=WRITTEN_AT_ONCE,
            began=datetime.now(UTC),
            per_event=timedelta(0),
        )
        took_s = time.perf_counter() - began
        worst.value = max(worst.value, took_s)
        number += WRITTEN_AT_ONCE
        time.sleep(max(1 / WRITES_PER_S - took_s, 0))
