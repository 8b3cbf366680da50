"""Prices of one list never overlap, hours included; one that has not begun may be taken back."""

from django.db import migrations

# Versions of all day stand apart from those of some hours: they overlap each other, not these.
HOURS = """
CREATE FUNCTION billing_hours(from_minute smallint, to_minute smallint) RETURNS int4multirange
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN from_minute = to_minute THEN int4multirange(int4range(-1, 0))
        WHEN from_minute < to_minute THEN int4multirange(int4range(from_minute, to_minute))
        ELSE int4multirange(int4range(from_minute, 1440), int4range(0, to_minute))
    END
$$;
"""

NO_OVERLAP = """
ALTER TABLE billing_priceversion DROP CONSTRAINT price_no_overlap;
ALTER TABLE billing_priceversion ADD CONSTRAINT price_no_overlap EXCLUDE USING gist (
    int8range(sku_id, sku_id, '[]') WITH &&,
    int8range(coalesce(price_list_id, 0), coalesce(price_list_id, 0), '[]') WITH &&,
    int8range(service_tier, service_tier, '[]') WITH &&,
    int8range(context_over, context_over, '[]') WITH &&,
    billing_hours(from_minute, to_minute) WITH &&,
    during WITH &&
);
"""

# Nobody can have been quoted a price that has not begun, or relied on an end still to come.
ONLY_CLOSE = """
CREATE OR REPLACE FUNCTION billing_price_only_closes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF lower(OLD.during) > now() THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'a price version is never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF upper(OLD.during) <= now() OR upper_inf(NEW.during) OR NOT OLD.during @> NEW.during
        OR lower(OLD.during) <> lower(NEW.during)
        OR to_jsonb(OLD) - 'during' <> to_jsonb(NEW) - 'during' THEN
        RAISE EXCEPTION 'a price version only changes by closing it'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
"""

RULES_END = """
CREATE FUNCTION billing_price_rule_only_ends() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.ended_at IS NOT NULL
        OR to_jsonb(OLD) - 'ended_at' <> to_jsonb(NEW) - 'ended_at' THEN
        RAISE EXCEPTION 'a price rule only changes by ending it'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER price_rule_only_ends BEFORE UPDATE OR DELETE ON billing_pricerule
    FOR EACH ROW EXECUTE FUNCTION billing_price_rule_only_ends();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_price_lists")]

    operations = [
        migrations.RunSQL(sql, reverse_sql=migrations.RunSQL.noop)
        for sql in (HOURS, NO_OVERLAP, ONLY_CLOSE, RULES_END)
    ]
