"""A plan may be given from a later moment on, and withdrawn until it begins. What holds when is said
by the assignments alone: a tenant's own column said the same a second time."""

import django.utils.timezone
from django.db import migrations, models

# The last word was the column's; one assignment at an instant is one that lasted.
ONE_TRUTH = """
DROP TRIGGER plan_assignment_append_only ON billing_planassignment;
DELETE FROM billing_planassignment earlier USING billing_planassignment later
    WHERE earlier.tenant_id = later.tenant_id AND earlier.assigned_at = later.assigned_at
        AND earlier.id < later.id;
INSERT INTO billing_planassignment (tenant_id, plan_id, assigned_at, assigned_by, recorded_at,
        withdrawn_by)
    SELECT tenant.id, tenant.plan_id, now(), 'migration', now(), ''
    FROM billing_tenant tenant LEFT JOIN LATERAL (
        SELECT plan_id FROM billing_planassignment
        WHERE tenant_id = tenant.id ORDER BY assigned_at DESC, id DESC LIMIT 1
    ) latest ON true
    WHERE latest.plan_id IS DISTINCT FROM tenant.plan_id;
"""
# A release back knows no later moments and no withdrawals.
TWO_TRUTHS = """
DELETE FROM billing_planassignment WHERE withdrawn_at IS NOT NULL OR assigned_at > now();
UPDATE billing_tenant SET plan_id = (
    SELECT plan_id FROM billing_planassignment
    WHERE tenant_id = billing_tenant.id ORDER BY assigned_at DESC LIMIT 1
);
SET CONSTRAINTS ALL IMMEDIATE;
CREATE TRIGGER plan_assignment_append_only BEFORE UPDATE OR DELETE ON billing_planassignment
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""
ONLY_WITHDRAWN = """
CREATE FUNCTION billing_plan_assignment_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.withdrawn_at IS NULL AND NEW.withdrawn_at IS NOT NULL
            AND (NEW.id, NEW.tenant_id, NEW.assigned_at, NEW.assigned_by, NEW.recorded_at)
                = (OLD.id, OLD.tenant_id, OLD.assigned_at, OLD.assigned_by, OLD.recorded_at)
            AND NEW.plan_id IS NOT DISTINCT FROM OLD.plan_id THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'billing_planassignment is append-only: it only changes by a withdrawal'
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER plan_assignment_kept BEFORE UPDATE OR DELETE ON billing_planassignment
    FOR EACH ROW EXECUTE FUNCTION billing_plan_assignment_kept();
"""
ANYTHING = """
DROP TRIGGER plan_assignment_kept ON billing_planassignment;
DROP FUNCTION billing_plan_assignment_kept;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0050_names_of_lists")]

    operations = [
        migrations.AlterModelOptions(
            name="planassignment",
            options={
                "verbose_name": "plan of a tenant",
                "verbose_name_plural": "plans of tenants",
            },
        ),
        migrations.AddField(
            model_name="planassignment",
            name="recorded_at",
            field=models.DateTimeField(default=django.utils.timezone.now),
        ),
        migrations.AddField(
            model_name="planassignment",
            name="withdrawn_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="planassignment",
            name="withdrawn_by",
            field=models.CharField(blank=True, max_length=150, default=""),
            preserve_default=False,
        ),
        migrations.RunSQL(ONE_TRUTH, reverse_sql=TWO_TRUTHS),
        # The rows' own checks are deferred, and a table with such ones pending is not altered.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", reverse_sql=migrations.RunSQL.noop),
        migrations.RunSQL(ONLY_WITHDRAWN, reverse_sql=ANYTHING),
        migrations.AddConstraint(
            model_name="planassignment",
            constraint=models.UniqueConstraint(
                condition=models.Q(("withdrawn_at", None)),
                fields=("tenant", "assigned_at"),
                name="plan_assignment_one_an_instant",
            ),
        ),
        migrations.AddConstraint(
            model_name="planassignment",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("withdrawn_at", None),
                    ("withdrawn_at__lt", models.F("assigned_at")),
                    _connector="OR",
                ),
                name="plan_assignment_withdrawn_before",
            ),
        ),
        migrations.RemoveField(model_name="tenant", name="plan"),
    ]
