"""Corrections of prices, and the credit notes they made; PostgreSQL keeps both as they are."""

import django.db.models.deletion
from django.db import migrations, models

APPEND_ONLY = """
CREATE TRIGGER rerating_append_only BEFORE UPDATE OR DELETE ON billing_rerating
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
CREATE TRIGGER adjustment_append_only BEFORE UPDATE OR DELETE ON billing_adjustment
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0008_topups"),
    ]

    operations = [
        migrations.AlterField(
            model_name="creditgrant",
            name="kind",
            field=models.CharField(
                choices=[
                    ("given", "Given"),
                    ("paid", "Paid"),
                    ("rounding", "Rounding"),
                    ("credit_note", "Credit Note"),
                    ("adjustment", "Adjustment"),
                    ("expiry", "Expiry"),
                ],
                default="given",
                max_length=12,
            ),
        ),
        migrations.CreateModel(
            name="ReRating",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("sku", models.CharField(max_length=200)),
                (
                    "service_tier",
                    models.SmallIntegerField(
                        choices=[(0, "Default"), (1, "Flex"), (2, "Priority"), (3, "Batch")],
                        default=0,
                    ),
                ),
                ("context_over", models.IntegerField(default=0)),
                ("from_minute", models.SmallIntegerField(default=0)),
                ("to_minute", models.SmallIntegerField(default=0)),
                ("since", models.DateTimeField()),
                ("until", models.DateTimeField()),
                ("rates", models.JSONField()),
                ("charges_more", models.BooleanField(default=False)),
                ("reason", models.CharField(max_length=200)),
                ("created_by", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField()),
                (
                    "replaces",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="replaced_by",
                        to="billing.rerating",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Adjustment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("events", models.PositiveIntegerField()),
                ("charged_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("corrected_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                (
                    "grant",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.creditgrant",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="adjustments",
                        to="billing.tenant",
                    ),
                ),
                (
                    "re_rating",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="adjustments",
                        to="billing.rerating",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="rerating",
            constraint=models.CheckConstraint(
                condition=models.Q(("since__lt", models.F("until"))), name="rerating_period_forward"
            ),
        ),
        migrations.AddConstraint(
            model_name="adjustment",
            constraint=models.UniqueConstraint(
                fields=("re_rating", "tenant"), name="adjustment_once_per_tenant"
            ),
        ),
        migrations.RunSQL(APPEND_ONLY, reverse_sql=migrations.RunSQL.noop),
    ]
