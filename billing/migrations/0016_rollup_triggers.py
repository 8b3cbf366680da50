"""PostgreSQL keeps the rollups, in the transaction that writes what they sum.

Statements are planned anew each time (EXECUTE): a plan made while a table was empty would read
all of it for ever after.
"""

from django.db import migrations

TOKENS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "output_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
)
DAY_KEY = "tenant_id, day, team_id, api_key_id, sku, supplier, model, price_version_id"
HOUR_KEY = "tenant_id, hour, day, sku, supplier, model, price_version_id, paid"
COUNTS = {"attempts": "sum(sign)", "requests": "coalesce(sum(sign) FILTER (WHERE is_first), 0)"}
POSTED = "coalesce(sum(sign * {0}::numeric) FILTER (WHERE state = 'posted'), 0)"
PICO = "sum(sign * {0}::numeric)"
DAY_SUMS = {
    **COUNTS,
    **{name: POSTED.format(name) for name in TOKENS},
    "cost_pico": PICO.format("tenant_cost_pico"),
    "supplier_cost_pico": PICO.format("supplier_cost_pico"),
    "overage_pico": PICO.format("overage_pico"),
    "debited_pico": PICO.format(
        "CASE state WHEN 'quarantined' THEN 1000::numeric * charged_nano ELSE tenant_cost_pico END"
    ),
}
HOUR_SUMS = {
    **COUNTS,
    **{name: POSTED.format(name) for name in ("input_tokens", "cache_read_tokens")},
    "output_tokens": POSTED.format("output_tokens"),
    "cost_pico": PICO.format("tenant_cost_pico"),
}


def rolled(table: str, key: str, sums: dict[str, str], latest: dict[str, str]) -> str:
    """Add the source's groups to a rollup, in the order of its key: so no two writers deadlock."""
    columns = ", ".join((*sums, *latest))
    values = ", ".join((*sums.values(), *latest.values()))
    added = [f"{name} = kept.{name} + excluded.{name}" for name in sums]
    added += [f"{name} = greatest(kept.{name}, excluded.{name})" for name in latest]
    return (
        f"INSERT INTO {table} AS kept ({key}, {columns})"
        f" SELECT {key}, {values} FROM source GROUP BY {key} ORDER BY {key}"
        f" ON CONFLICT ({key}) DO UPDATE SET {', '.join(added)}"
    )


def rolling(events: str) -> str:
    """The statement that adds these rows (`sign` 1) or takes them off again (`sign` -1)."""
    return (
        "WITH source AS MATERIALIZED ("
        " SELECT e.*, tenant_cost_pico > 0 AS paid, date_trunc('hour', occurred_at, 'UTC') AS hour,"
        " NOT EXISTS (SELECT FROM billing_usageevent u"
        " WHERE u.request_id = e.request_id AND u.id < e.id) AS is_first"
        f" FROM ({events}) e"
        f"), by_day AS ({rolled('billing_usageday', DAY_KEY, DAY_SUMS, LATEST)})"
        f" {rolled('billing_usagehour', HOUR_KEY, HOUR_SUMS, {})}"
    )


LATEST = {"last_at": "max(occurred_at)"}
ADDED = "SELECT 1 AS sign, fresh.* FROM fresh"
CHANGED = f"{ADDED} UNION ALL SELECT -1, stale.* FROM stale"
# What the foreign keys promised row by row, once per statement.
STRANGERS = """
    SELECT EXISTS (
        SELECT FROM (SELECT DISTINCT tenant_id AS id FROM fresh) named
        WHERE NOT EXISTS (SELECT FROM billing_tenant t WHERE t.id = named.id)
    ) OR EXISTS (
        SELECT FROM (SELECT DISTINCT price_version_id AS id FROM fresh) named
        WHERE named.id IS NOT NULL
            AND NOT EXISTS (SELECT FROM billing_priceversion p WHERE p.id = named.id)
    )
"""


def quoted(sql: str) -> str:
    return f"$sql${sql}$sql$"


def function(name: str, events: str) -> str:
    return f"""
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    has_strangers boolean;
BEGIN
    EXECUTE {quoted(STRANGERS)} INTO has_strangers;
    IF has_strangers THEN
        RAISE EXCEPTION 'a usage event of no such tenant or price'
            USING ERRCODE = 'foreign_key_violation';
    END IF;
    EXECUTE {quoted(rolling(events))};
    RETURN NULL;
END $$;
"""


TRIGGERS = (
    function("billing_usage_added", ADDED)
    + function("billing_usage_changed", CHANGED)
    + """
CREATE TRIGGER usage_added AFTER INSERT ON billing_usageevent REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION billing_usage_added();
CREATE TRIGGER usage_changed AFTER UPDATE ON billing_usageevent
    REFERENCING NEW TABLE AS fresh OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION billing_usage_changed();
"""
)


def summed(entries: str) -> str:
    key = "account_id, code, tenant_id"
    return (
        f"INSERT INTO billing_accountsum AS kept ({key}, entries, amount_pico)"
        f" SELECT {key}, count(*), sum(amount_pico) FROM {entries} e"
        " JOIN billing_transfer t ON t.id = e.transfer_id"
        f" GROUP BY {key} ORDER BY {key}"
        f" ON CONFLICT ({key}) DO UPDATE SET entries = kept.entries + excluded.entries,"
        " amount_pico = kept.amount_pico + excluded.amount_pico"
    )


ENTRY_TRIGGER = f"""
CREATE FUNCTION billing_entries_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE {quoted(summed("fresh"))};
    RETURN NULL;
END $$;
CREATE TRIGGER entries_added AFTER INSERT ON billing_entry REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION billing_entries_added();
"""
# Room on each page, so that adding to a row need not touch its indexes.
ROOM = """
ALTER TABLE billing_usageday SET (fillfactor = 70);
ALTER TABLE billing_usagehour SET (fillfactor = 70);
ALTER TABLE billing_accountsum SET (fillfactor = 70);
"""
# Writers wait: what they add must not be counted twice. The drain's stream keeps it for them.
ALL_SO_FAR = "LOCK TABLE billing_usageevent IN SHARE ROW EXCLUSIVE MODE;" + rolling(
    "SELECT 1 AS sign, u.* FROM billing_usageevent u"
)


class Migration(migrations.Migration):
    dependencies = [("billing", "0015_rollups")]

    operations = [
        migrations.RunSQL(sql, reverse_sql=migrations.RunSQL.noop)
        for sql in (ROOM, ALL_SO_FAR, TRIGGERS, ENTRY_TRIGGER)
    ]
