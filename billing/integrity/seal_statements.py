"""The audit's SQL: what blocks of rows come to, as they were sealed and as they are now.

A block is BLOCK consecutive ids, of usage events or of transfers. {which} says which of them.
"""

from typing import Final

BLOCK: Final = 100_000


def hashed(facts: str) -> str:
    """A record's hash is linear in its fields' hashes: two rows that swap a field would add up to
    the same. So it is hashed once more; a change goes unseen once in four billion."""
    return f"hashint8extended(hash_record_extended(ROW({facts}), 0), 0)"


def of_columns(alias: str, names: str) -> str:
    return ", ".join(f"{alias}.{name}" for name in names.split(", "))


# Hashed by PostgreSQL's own functions on the stored values: no session's settings show in them, and
# a column that a later version adds changes none. Migration 0026 has the same list.
EVENT_FACTS: Final = (
    "id, request_id, attempt, day, tenant_id, team_id, api_key_id, session_hash, sku,"
    " price_version_id, offer_id, supplier, model, outcome, usage_source, input_tokens,"
    " cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, input_audio_tokens,"
    " input_image_tokens, output_tokens, reasoning_tokens, output_audio_tokens, rated_pico,"
    " tenant_cost_pico, supplier_cost_pico, overage_pico, hold_nano, charged_nano, occurred_at,"
    " settled_at, stream_id, body_hash, detail, state, quarantine_reason, transfer_id, drained_at"
)
EVENT_KEY: Final = "block, tenant_id, day"
EVENT_SUMS: Final = "attempts, requests, cost_pico, supplier_cost_pico, overage_pico, debited_pico"
EVENTS: Final = f"""
    SELECT u.id / {BLOCK} AS block, u.tenant_id, u.day, count(*) AS attempts,
        count(*) FILTER (WHERE NOT EXISTS (
            SELECT FROM billing_usageevent earlier
            WHERE earlier.request_id = u.request_id AND earlier.id < u.id)) AS requests,
        sum(u.tenant_cost_pico) AS cost_pico, sum(u.supplier_cost_pico) AS supplier_cost_pico,
        sum(u.overage_pico) AS overage_pico,
        sum(CASE u.state WHEN 'quarantined' THEN 1000::numeric * u.charged_nano
            ELSE u.tenant_cost_pico END) AS debited_pico,
        sum({hashed(of_columns("u", EVENT_FACTS))}) AS digest
    FROM billing_usageevent u WHERE {{which}} GROUP BY 1, 2, 3
"""
ENTRY_FACTS: Final = "id, transfer_id, account_id, amount_pico"
TRANSFER_FACTS: Final = "code, tenant_id, memo, corrects_id, idempotency_key, created_at"
ENTRY_KEY: Final = "block, account_id, code"
ENTRY_SUMS: Final = "entries, amount_pico"
_ENTRY: Final = of_columns("e", ENTRY_FACTS) + ", " + of_columns("t", TRANSFER_FACTS)
ENTRIES: Final = f"""
    SELECT t.id / {BLOCK} AS block, e.account_id, t.code, count(*) AS entries,
        sum(e.amount_pico) AS amount_pico,
        sum({hashed(_ENTRY)}) AS digest
    FROM billing_transfer t JOIN billing_entry e ON e.transfer_id = t.id
    WHERE {{which}} GROUP BY 1, 2, 3
"""


def of_block(alias: str) -> str:
    return f"{alias}.id >= %(first)s AND {alias}.id < %(after)s"


def seal(table: str, key: str, sums: str, summed: str) -> str:
    return f"INSERT INTO {table} ({key}, {sums}, digest) {summed} ON CONFLICT ({key}) DO NOTHING"


def digest(table: str, key: str, summed: str) -> str:
    """Gives a digest to the seals of a block that have none yet."""
    same = " AND ".join(f"sealed.{name} = found.{name}" for name in key.split(", "))
    return f"""
        UPDATE {table} sealed SET digest = found.digest FROM ({summed}) found
        WHERE {same} AND sealed.digest IS NULL
    """


def compare(table: str, key: str, sums: str, summed: str) -> str:
    """Finds where a sealed block is no longer what it was."""
    sealed, found = of_columns("sealed", sums), of_columns("found", sums)
    return f"""
        SELECT {key}, {sealed}, sealed.digest, {found}, found.digest
        FROM (SELECT * FROM {table} WHERE block = %(block)s) sealed
        FULL JOIN ({summed}) found USING ({key})
        WHERE ({sealed}) IS DISTINCT FROM ({found}) OR sealed.digest <> found.digest LIMIT 5
    """


def _all_blocks(table: str, rows: str, names: str, summed: str, alias: str) -> str:
    """What was sealed, and what the rows of all other blocks come to, at one instant."""
    of_open = f"{alias}.id >= open.block * {BLOCK} AND {alias}.id < (open.block + 1) * {BLOCK}"
    return f"""
        SELECT {names} FROM {table} UNION ALL
        SELECT {names} FROM (
            SELECT n AS block FROM generate_series(0, (SELECT max(id) / {BLOCK} FROM {rows})) n
            WHERE NOT EXISTS (SELECT FROM {table} sealed WHERE sealed.block = n)
        ) open CROSS JOIN LATERAL ({summed.format(which=of_open)}) found
    """


_EVENTS_IN_ALL: Final = _all_blocks(
    "billing_eventseal", "billing_usageevent", f"tenant_id, day, {EVENT_SUMS}", EVENTS, "u"
)
_ENTRIES_IN_ALL: Final = _all_blocks(
    "billing_entryseal", "billing_transfer", f"account_id, code, {ENTRY_SUMS}", ENTRIES, "t"
)
# The sums that pages and caps read, against sealed blocks and all rows of the others.
OF_BLOCKS: Final = {
    "usage sums equal their events": f"""
        SELECT tenant_id, day, kept.*, summed.* FROM (
            SELECT tenant_id, day, sum(attempts), sum(requests), sum(cost_pico),
                sum(supplier_cost_pico), sum(overage_pico), sum(debited_pico)
            FROM billing_usageday GROUP BY tenant_id, day
        ) AS kept (tenant_id, day, attempts, requests, cost, supplied, over, debited) FULL JOIN (
            SELECT tenant_id, day, sum(attempts), sum(requests), sum(cost_pico),
                sum(supplier_cost_pico), sum(overage_pico), sum(debited_pico)
            FROM ({_EVENTS_IN_ALL}) blocks GROUP BY tenant_id, day
        ) AS summed (tenant_id, day, attempts, requests, cost, supplied, over, debited)
            USING (tenant_id, day)
        WHERE (kept.attempts, kept.requests, kept.cost, kept.supplied, kept.over, kept.debited)
            IS DISTINCT FROM (summed.attempts, summed.requests, summed.cost, summed.supplied,
                summed.over, summed.debited) LIMIT 5
    """,
    "account sums equal their entries": f"""
        SELECT account_id, code, kept.amount, summed.amount FROM (
            SELECT account_id, code, sum(amount_pico) AS amount, sum(entries) AS entries
            FROM billing_accountsum GROUP BY account_id, code
        ) kept FULL JOIN (
            SELECT account_id, code, sum(amount_pico) AS amount, sum(entries) AS entries
            FROM ({_ENTRIES_IN_ALL}) blocks GROUP BY account_id, code
        ) summed USING (account_id, code)
        WHERE (kept.amount, kept.entries) IS DISTINCT FROM (summed.amount, summed.entries) LIMIT 5
    """,
}
