"""What was bought, disputed or claimed stands: only what became of it is written, and only on."""

from django.db import migrations

TOPUPS = """
CREATE FUNCTION billing_topup_stands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stands text[] := ARRAY['id', 'key', 'tenant_id', 'created_by', 'created_at'];
    asked text[] := ARRAY['net_cents', 'tax_cents', 'is_taxed_later'];
    paid text[] := ARRAY['state', 'payment_reference', 'grant_id', 'ended_at'];
    fact text;
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a purchase is never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    -- Under review, a person says what arrived.
    IF OLD.state <> 'review' THEN
        stands := stands || asked;
    END IF;
    IF OLD.state = 'paid' THEN
        stands := stands || paid;
    END IF;
    FOREACH fact IN ARRAY stands LOOP
        IF to_jsonb(OLD) -> fact <> to_jsonb(NEW) -> fact THEN
            RAISE EXCEPTION '% of a purchase stands', fact USING ERRCODE = 'restrict_violation';
        END IF;
    END LOOP;
    IF NEW.refunded_cents < OLD.refunded_cents THEN
        RAISE EXCEPTION 'what was refunded stays refunded' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER topup_stands BEFORE UPDATE OR DELETE ON billing_topup
    FOR EACH ROW EXECUTE FUNCTION billing_topup_stands();
"""
DISPUTES = """
CREATE FUNCTION billing_dispute_stands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    told text[] := ARRAY['stages', 'amount_cents'];
BEGIN
    IF TG_OP = 'DELETE' OR to_jsonb(OLD) - told <> to_jsonb(NEW) - told
        OR NOT NEW.stages @> OLD.stages OR NEW.amount_cents < OLD.amount_cents THEN
        RAISE EXCEPTION 'a dispute only goes on' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER dispute_stands BEFORE UPDATE OR DELETE ON billing_dispute
    FOR EACH ROW EXECUTE FUNCTION billing_dispute_stands();
"""
CLAIMS = """
CREATE FUNCTION billing_claim_stands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    decided text[] := ARRAY['decided_at', 'decided_by', 'decision', 'owed_pico', 'transfer_id'];
BEGIN
    IF TG_OP = 'DELETE' OR OLD.decided_at IS NOT NULL
        OR to_jsonb(OLD) - decided <> to_jsonb(NEW) - decided THEN
        RAISE EXCEPTION 'a claim is decided once' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER claim_stands BEFORE UPDATE OR DELETE ON billing_claim
    FOR EACH ROW EXECUTE FUNCTION billing_claim_stands();
"""
# What may not change at all.
FIXED = """
CREATE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE ON billing_{name}
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0056_row_versions")]

    operations = [
        *(
            migrations.RunSQL(
                sql,
                reverse_sql=f"DROP TRIGGER {name}_stands ON billing_{name};"
                f" DROP FUNCTION billing_{name}_stands;",
            )
            for name, sql in (("topup", TOPUPS), ("dispute", DISPUTES), ("claim", CLAIMS))
        ),
        *(
            migrations.RunSQL(
                FIXED.format(name=name),
                reverse_sql=f"DROP TRIGGER {name}_append_only ON billing_{name};",
            )
            for name in ("sku", "account")
        ),
    ]
