"""Since when a tenant is on which plan: a month's rebate goes by the plan at its end."""

import django.db.models.deletion
from django.db import migrations, models

# Who is on a plan already has been since before anybody asked.
SO_FAR = """
INSERT INTO billing_planassignment (tenant_id, plan_id, assigned_at, assigned_by)
SELECT id, plan_id, created_at, 'migration' FROM billing_tenant WHERE plan_id IS NOT NULL;
"""
APPEND_ONLY = """
CREATE TRIGGER plan_assignment_append_only BEFORE UPDATE OR DELETE ON billing_planassignment
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0018_no_adjustment_lines")]

    operations = [
        migrations.CreateModel(
            name="PlanAssignment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("assigned_at", models.DateTimeField()),
                ("assigned_by", models.CharField(max_length=150)),
                (
                    "plan",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.pricelist",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="plan_assignments",
                        to="billing.tenant",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["tenant", "-assigned_at"], name="billing_pla_tenant__73e19d_idx"
                    )
                ],
            },
        ),
        migrations.RunSQL(SO_FAR, reverse_sql=migrations.RunSQL.noop),
        # The rows' own checks are deferred, and a table with such ones pending takes no trigger.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", reverse_sql=migrations.RunSQL.noop),
        migrations.RunSQL(APPEND_ONLY, reverse_sql=migrations.RunSQL.noop),
    ]
