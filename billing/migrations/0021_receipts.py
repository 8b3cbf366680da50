"""A numbered receipt for every purchase of credit."""

import django.db.models.deletion
from django.db import migrations, models

APPEND_ONLY = """
CREATE TRIGGER receipt_append_only BEFORE UPDATE OR DELETE ON billing_receipt
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0020_credit_alerts"),
    ]

    operations = [
        migrations.AlterField(
            model_name="numberseries",
            name="document",
            field=models.CharField(
                choices=[("INV", "Invoice"), ("CN", "Credit Note"), ("RCP", "Receipt")],
                max_length=4,
            ),
        ),
        migrations.CreateModel(
            name="Receipt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.CharField(max_length=20, unique=True)),
                ("parties", models.JSONField()),
                ("tax_ppm", models.PositiveIntegerField(null=True)),
                ("payment_reference", models.CharField(max_length=120)),
                ("net_cents", models.BigIntegerField()),
                ("tax_cents", models.BigIntegerField()),
                ("issued_at", models.DateTimeField()),
                (
                    "topup",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="receipt",
                        to="billing.topup",
                    ),
                ),
            ],
        ),
        migrations.RunSQL(APPEND_ONLY, reverse_sql=migrations.RunSQL.noop),
    ]
