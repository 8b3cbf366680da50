"""What PostgreSQL guards of invoices: an issued document and its lines stand for good."""

from django.db import migrations

INVOICES_STAND = """
CREATE FUNCTION billing_invoice_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'draft' THEN
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    IF TG_OP = 'DELETE' OR OLD.state = 'void' OR NEW.state <> 'void'
        OR to_jsonb(OLD) - ARRAY['state', 'void_reason']
            <> to_jsonb(NEW) - ARRAY['state', 'void_reason'] THEN
        RAISE EXCEPTION 'an issued invoice only changes by voiding it'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_stands BEFORE UPDATE OR DELETE ON billing_invoice
    FOR EACH ROW EXECUTE FUNCTION billing_invoice_stands();
"""

LINES_STAND = """
CREATE FUNCTION billing_invoice_line_stands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    line billing_invoiceline := CASE WHEN TG_OP = 'INSERT' THEN NEW ELSE OLD END;
    state text := (SELECT i.state FROM billing_invoice i WHERE i.id = line.invoice_id);
BEGIN
    IF state <> 'draft' OR TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'lines of an issued invoice stand' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN line;
END $$;
CREATE TRIGGER invoice_line_stands BEFORE INSERT OR UPDATE OR DELETE ON billing_invoiceline
    FOR EACH ROW EXECUTE FUNCTION billing_invoice_line_stands();
"""

APPEND_ONLY = """
CREATE TRIGGER credit_note_append_only BEFORE UPDATE OR DELETE ON billing_creditnote
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
CREATE TRIGGER payment_append_only BEFORE UPDATE OR DELETE ON billing_payment
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
CREATE TRIGGER grant_use_append_only BEFORE UPDATE OR DELETE ON billing_grantuse
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_invoices")]

    operations = [
        migrations.RunSQL(sql, reverse_sql=migrations.RunSQL.noop)
        for sql in (INVOICES_STAND, LINES_STAND, APPEND_ONLY)
    ]
