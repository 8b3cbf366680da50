"""A numbered note for every refund of bought credit."""

import django.db.models.deletion
from django.db import migrations, models

APPEND_ONLY = """
CREATE TRIGGER refund_append_only BEFORE UPDATE OR DELETE ON billing_refund
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0024_payouts"),
    ]

    operations = [
        migrations.AlterField(
            model_name="numberseries",
            name="document",
            field=models.CharField(
                choices=[
                    ("INV", "Invoice"),
                    ("CN", "Credit Note"),
                    ("RCP", "Receipt"),
                    ("RFN", "Refund"),
                ],
                max_length=4,
            ),
        ),
        migrations.CreateModel(
            name="Refund",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.CharField(max_length=20, unique=True)),
                ("receipt", models.CharField(blank=True, max_length=20)),
                ("parties", models.JSONField()),
                ("tax_ppm", models.PositiveIntegerField(null=True)),
                ("payment_reference", models.CharField(max_length=120)),
                ("net_cents", models.BigIntegerField()),
                ("tax_cents", models.BigIntegerField()),
                ("issued_at", models.DateTimeField()),
                (
                    "topup",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refunds",
                        to="billing.topup",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("net_cents__gte", 0), ("tax_cents__gte", 0)),
                        name="refund_not_negative",
                    )
                ],
            },
        ),
        migrations.RunSQL(APPEND_ONLY, reverse_sql=migrations.RunSQL.noop),
    ]
