"""Adjustment notes are never rewritten; what earlier credit notes had settled is written down."""

from django.db import migrations

STANDS = """
CREATE TRIGGER adjustment_note_append_only BEFORE UPDATE OR DELETE ON billing_adjustmentnote
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""
# Every note of before counts whole against what was open, as it did.
SETTLED = """
ALTER TABLE billing_creditnote DISABLE TRIGGER credit_note_append_only;
UPDATE billing_creditnote SET settled_net_cents = net_cents, settled_tax_cents = tax_cents;
ALTER TABLE billing_creditnote ENABLE TRIGGER credit_note_append_only;
UPDATE billing_billingprofile SET is_reverse_charge = true
    WHERE tax_note ~* 'reverse[ -]charge' AND tax_ppm = 0 AND tax_id <> '';
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0035_adjustment_notes")]

    operations = [
        migrations.RunSQL(sql, reverse_sql=migrations.RunSQL.noop) for sql in (STANDS, SETTLED)
    ]
