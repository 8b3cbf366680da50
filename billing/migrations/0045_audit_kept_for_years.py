"""An audit entry goes once it is more than a year old and whoever deletes it says up to when it is
forgotten; all else about it stands for good."""

from django.db import migrations

STANDS = """
CREATE FUNCTION billing_audit_entry_stands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    until text := nullif(current_setting('tokenhouse.audit_forgotten_until', true), '');
BEGIN
    IF TG_OP = 'DELETE' AND OLD.occurred_at < until::timestamptz
            AND OLD.occurred_at < now() - interval '1 year' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
DROP TRIGGER audit_entry_append_only ON billing_auditentry;
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON billing_auditentry
    FOR EACH ROW EXECUTE FUNCTION billing_audit_entry_stands();
"""
AS_BEFORE = """
DROP TRIGGER audit_entry_append_only ON billing_auditentry;
CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON billing_auditentry
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
DROP FUNCTION billing_audit_entry_stands();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0044_bill_rows_stand")]

    operations = [migrations.RunSQL(STANDS, reverse_sql=AS_BEFORE)]
