"""The columns that said what an invoice covers before there were spans; and spans stand."""

from django.db import migrations

TRIGGER = """
CREATE TRIGGER covered_span_stands BEFORE INSERT OR UPDATE OR DELETE ON billing_coveredspan
    FOR EACH ROW EXECUTE FUNCTION billing_covered_span_stands();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0029_covered_spans")]

    operations = [
        migrations.RunSQL(TRIGGER, reverse_sql=migrations.RunSQL.noop),
        migrations.RemoveField(model_name="invoice", name="from_end"),
        migrations.RemoveField(model_name="invoice", name="from_transfer"),
    ]
