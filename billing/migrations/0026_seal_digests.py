"""Seals have a digest of their rows; what moves the seal of an event that is resolved moves it too."""

from django.db import migrations, models

FACTS = (
    "id, request_id, attempt, day, tenant_id, team_id, api_key_id, session_hash, sku,"
    " price_version_id, offer_id, supplier, model, outcome, usage_source, input_tokens,"
    " cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, input_audio_tokens,"
    " input_image_tokens, output_tokens, reasoning_tokens, output_audio_tokens, rated_pico,"
    " tenant_cost_pico, supplier_cost_pico, overage_pico, hold_nano, charged_nano, occurred_at,"
    " settled_at, stream_id, body_hash, detail, state, quarantine_reason, transfer_id, drained_at"
)
# The lock first: its wait is over before the statement that looks for seals begins.
MOVED = """
CREATE OR REPLACE FUNCTION billing_seals_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE billing_eventseal IN ROW EXCLUSIVE MODE;
    UPDATE billing_eventseal seal SET
        cost_pico = seal.cost_pico + moved.cost,
        supplier_cost_pico = seal.supplier_cost_pico + moved.supplied,
        overage_pico = seal.overage_pico + moved.over,
        debited_pico = seal.debited_pico + moved.debited{digest}
    FROM (
        SELECT id / 100000 AS block, tenant_id, day, sum(sign * tenant_cost_pico) AS cost,
            sum(sign * supplier_cost_pico) AS supplied, sum(sign * overage_pico) AS over,
            sum(sign * CASE state WHEN 'quarantined' THEN 1000::numeric * charged_nano
                ELSE tenant_cost_pico END) AS debited{hashed}
        FROM (SELECT 1 AS sign, fresh.* FROM fresh UNION ALL SELECT -1, stale.* FROM stale) changed
        GROUP BY 1, 2, 3
    ) moved
    WHERE seal.block = moved.block AND seal.tenant_id = moved.tenant_id AND seal.day = moved.day;
    RETURN NULL;
END $$;
"""
WITH_DIGEST = MOVED.format(
    digest=", digest = seal.digest + moved.digest",
    hashed=", sum(sign::numeric * hashint8extended(hash_record_extended("
    f"ROW({FACTS}), 0), 0)) AS digest",
)


def digest() -> models.DecimalField:
    return models.DecimalField(decimal_places=0, max_digits=38, null=True)


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0025_refunds"),
    ]

    operations = [
        migrations.AddField(model_name="eventseal", name="digest", field=digest()),
        migrations.AddField(model_name="entryseal", name="digest", field=digest()),
        migrations.RunSQL(WITH_DIGEST, reverse_sql=MOVED.format(digest="", hashed="")),
    ]
