"""What PostgreSQL itself guards: no overlapping prices, nothing rewritten, every transfer zero."""

from django.db import migrations

# int8range instead of plain equality: the embedded PostgreSQL has no btree_gist.
NO_OVERLAP = """
ALTER TABLE billing_priceversion ADD CONSTRAINT price_no_overlap EXCLUDE USING gist (
    int8range(sku_id, sku_id, '[]') WITH &&,
    int8range(service_tier, service_tier, '[]') WITH &&,
    int8range(context_over, context_over, '[]') WITH &&,
    during WITH &&
);
ALTER TABLE billing_priceversion ADD CONSTRAINT price_dated CHECK (
    NOT isempty(during) AND NOT lower_inf(during) AND lower_inc(during) AND NOT upper_inc(during)
);
"""

PRICES_ONLY_CLOSE = """
CREATE FUNCTION billing_price_only_closes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a price version is never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF NOT upper_inf(OLD.during) OR upper_inf(NEW.during)
        OR lower(OLD.during) <> lower(NEW.during)
        OR to_jsonb(OLD) - 'during' <> to_jsonb(NEW) - 'during' THEN
        RAISE EXCEPTION 'a price version only changes by closing it'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER price_only_closes BEFORE UPDATE OR DELETE ON billing_priceversion
    FOR EACH ROW EXECUTE FUNCTION billing_price_only_closes();
"""

APPEND_ONLY = """
CREATE FUNCTION billing_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER transfer_append_only BEFORE UPDATE OR DELETE ON billing_transfer
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
CREATE TRIGGER entry_append_only BEFORE UPDATE OR DELETE ON billing_entry
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
CREATE TRIGGER credit_grant_append_only BEFORE UPDATE OR DELETE ON billing_creditgrant
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""

# A quarantined event is resolved once, by a person; all else about any event stands for good.
EVENTS_STAND = """
CREATE FUNCTION billing_usage_event_stands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    resolved text[] := ARRAY['state', 'quarantine_reason', 'price_version_id', 'rated_pico',
        'tenant_cost_pico', 'supplier_cost_pico', 'overage_pico', 'transfer_id'];
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a usage event is never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state <> 'quarantined' OR to_jsonb(OLD) - resolved <> to_jsonb(NEW) - resolved THEN
        RAISE EXCEPTION 'a usage event is never rewritten' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER usage_event_stands BEFORE UPDATE OR DELETE ON billing_usageevent
    FOR EACH ROW EXECUTE FUNCTION billing_usage_event_stands();
"""

DAY_OF_ID = """
CREATE FUNCTION billing_day_of(request_id uuid) RETURNS date LANGUAGE sql IMMUTABLE STRICT
    PARALLEL SAFE AS $$
    SELECT date '1970-01-01' + (
        ('x0000' || replace(left(request_id::text, 13), '-', ''))::bit(64)::bigint / 86400000
    )::int
$$;
ALTER TABLE billing_usageevent ADD CONSTRAINT usage_event_day_of_id
    CHECK (day = billing_day_of(request_id));
"""

BALANCED = """
CREATE FUNCTION billing_transfer_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    transfer bigint := CASE WHEN TG_TABLE_NAME = 'billing_transfer'
        THEN (to_jsonb(NEW) ->> 'id')::bigint ELSE (to_jsonb(NEW) ->> 'transfer_id')::bigint END;
    total numeric;
    legs bigint;
BEGIN
    SELECT sum(amount_pico), count(*) INTO total, legs
        FROM billing_entry WHERE transfer_id = transfer;
    IF legs < 2 OR total <> 0 THEN
        RAISE EXCEPTION 'transfer % has % entries that sum to %', transfer, legs, total
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER transfer_balances AFTER INSERT ON billing_transfer
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_transfer_balances();
CREATE CONSTRAINT TRIGGER entry_balances AFTER INSERT ON billing_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_transfer_balances();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [
        migrations.RunSQL(sql, reverse_sql=migrations.RunSQL.noop)
        for sql in (
            NO_OVERLAP,
            PRICES_ONLY_CLOSE,
            APPEND_ONLY,
            EVENTS_STAND,
            DAY_OF_ID,
            BALANCED,
        )
    ]
