"""Volume rebates: a plan's tiers, and what was given back by them; both stay as they are."""

import django.db.models.deletion
from django.db import migrations, models

APPEND_ONLY = """
CREATE TRIGGER rebate_scale_append_only BEFORE UPDATE OR DELETE ON billing_rebatescale
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
CREATE TRIGGER volume_rebate_append_only BEFORE UPDATE OR DELETE ON billing_volumerebate
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0011_scopes_and_modes"),
    ]

    operations = [
        migrations.CreateModel(
            name="RebateScale",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("from_month", models.DateField()),
                (
                    "mode",
                    models.CharField(
                        choices=[
                            ("graduated", "each part at its own tier"),
                            ("volume", "all of it at the tier reached"),
                        ],
                        max_length=10,
                    ),
                ),
                ("tiers", models.JSONField()),
                ("recorded_by", models.CharField(max_length=150)),
                ("recorded_at", models.DateTimeField()),
                (
                    "plan",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="rebate_scales",
                        to="billing.pricelist",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="VolumeRebate",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("month", models.DateField()),
                ("spent_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("due_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                (
                    "grant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, to="billing.creditgrant"
                    ),
                ),
                (
                    "scale",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, to="billing.rebatescale"
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="rebates",
                        to="billing.tenant",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="rebatescale",
            constraint=models.UniqueConstraint(
                fields=("plan", "from_month"), name="rebate_scale_one_per_month"
            ),
        ),
        migrations.AddConstraint(
            model_name="rebatescale",
            constraint=models.CheckConstraint(
                condition=models.Q(("from_month__day", 1)), name="rebate_scale_from_a_first"
            ),
        ),
        migrations.AddIndex(
            model_name="volumerebate",
            index=models.Index(fields=["tenant", "month"], name="billing_vol_tenant__1724c3_idx"),
        ),
        migrations.RunSQL(APPEND_ONLY, reverse_sql=migrations.RunSQL.noop),
    ]
