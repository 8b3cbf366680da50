"""Seals of audited blocks, and what moves the seal of an event that is resolved."""

import django.db.models.deletion
from django.db import migrations, models

# The lock first: its wait is over before the statement that looks for seals begins.
MOVED = """
CREATE FUNCTION billing_seals_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE billing_eventseal IN ROW EXCLUSIVE MODE;
    UPDATE billing_eventseal seal SET
        cost_pico = seal.cost_pico + moved.cost,
        supplier_cost_pico = seal.supplier_cost_pico + moved.supplied,
        overage_pico = seal.overage_pico + moved.over,
        debited_pico = seal.debited_pico + moved.debited
    FROM (
        SELECT id / 100000 AS block, tenant_id, day, sum(sign * tenant_cost_pico) AS cost,
            sum(sign * supplier_cost_pico) AS supplied, sum(sign * overage_pico) AS over,
            sum(sign * CASE state WHEN 'quarantined' THEN 1000::numeric * charged_nano
                ELSE tenant_cost_pico END) AS debited
        FROM (SELECT 1 AS sign, fresh.* FROM fresh UNION ALL SELECT -1, stale.* FROM stale) changed
        GROUP BY 1, 2, 3
    ) moved
    WHERE seal.block = moved.block AND seal.tenant_id = moved.tenant_id AND seal.day = moved.day;
    RETURN NULL;
END $$;
CREATE TRIGGER seals_moved AFTER UPDATE ON billing_usageevent
    REFERENCING NEW TABLE AS fresh OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION billing_seals_moved();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0022_faster_rollups"),
    ]

    operations = [
        migrations.CreateModel(
            name="EntrySeal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("block", models.BigIntegerField()),
                ("code", models.CharField(max_length=16)),
                ("entries", models.BigIntegerField()),
                ("amount_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                (
                    "account",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.account",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("block", "account", "code"), name="entry_seal_unique"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="EventSeal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("block", models.BigIntegerField()),
                ("day", models.DateField()),
                ("attempts", models.BigIntegerField()),
                ("requests", models.BigIntegerField()),
                ("cost_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("supplier_cost_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("overage_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("debited_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.tenant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("block", "tenant", "day"), name="event_seal_unique"
                    )
                ],
            },
        ),
        migrations.RunSQL(MOVED, reverse_sql=migrations.RunSQL.noop),
    ]
