"""Money sent to sellers: each payout is written down once and stays."""

import django.db.models.deletion
from django.db import migrations, models

APPEND_ONLY = """
CREATE TRIGGER payout_append_only BEFORE UPDATE OR DELETE ON billing_payout
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0023_seals"),
    ]

    operations = [
        migrations.AlterField(
            model_name="transfer",
            name="code",
            field=models.CharField(
                choices=[
                    ("grant", "Grant"),
                    ("usage", "Usage"),
                    ("correction", "Correction"),
                    ("invoice", "Invoice"),
                    ("payment", "Payment"),
                    ("credit_note", "Credit Note"),
                    ("payout", "Payout"),
                ],
                max_length=16,
            ),
        ),
        migrations.CreateModel(
            name="Payout",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("supplier", models.CharField(max_length=80)),
                ("amount_cents", models.BigIntegerField()),
                ("reference", models.CharField(max_length=90, unique=True)),
                ("paid_on", models.DateField()),
                ("created_by", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField()),
                (
                    "transfer",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, to="billing.transfer"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["supplier", "-paid_on"], name="billing_pay_supplie_a924ed_idx"
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount_cents__gt", 0)), name="payout_positive"
                    )
                ],
            },
        ),
        migrations.RunSQL(APPEND_ONLY, reverse_sql=migrations.RunSQL.noop),
    ]
