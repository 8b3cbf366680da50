"""What days earned, summed from the days' sums: the margins need not read every key, sku and price."""

import django.db.models.deletion
from django.db import migrations, models

KEY = "day, tenant_id, model"


def summed(days: str) -> str:
    """Add these rows (`sign` 1) or take them off (`sign` -1), in the order of the key: so no two
    writers deadlock."""
    return f"""
        INSERT INTO billing_earnedday AS kept ({KEY}, cost_pico, supplier_cost_pico)
        SELECT {KEY}, sum(sign * cost_pico), sum(sign * supplier_cost_pico)
        FROM ({days}) days GROUP BY {KEY} ORDER BY {KEY}
        ON CONFLICT ({KEY}) DO UPDATE SET
            cost_pico = kept.cost_pico + excluded.cost_pico,
            supplier_cost_pico = kept.supplier_cost_pico + excluded.supplier_cost_pico
    """


def days_of(table: str, sign: int = 1) -> str:
    return f"SELECT {sign} AS sign, {KEY}, cost_pico, supplier_cost_pico FROM {table}"


def trigger(name: str, event: str, tables: str, days: str) -> str:
    """Planned anew each time, as the other rollups are."""
    return f"""
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE $sql${summed(days)}$sql$;
    RETURN NULL;
END $$;
CREATE TRIGGER {name.removeprefix("billing_")} AFTER {event} ON billing_usageday
    REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION {name}();
"""


TRIGGERS = trigger(
    "billing_earned_added", "INSERT", "NEW TABLE AS fresh", days_of("fresh")
) + trigger(
    "billing_earned_changed",
    "UPDATE",
    "NEW TABLE AS fresh OLD TABLE AS stale",
    f"{days_of('fresh')} UNION ALL {days_of('stale', -1)}",
)
NO_TRIGGERS = """
DROP TRIGGER earned_added ON billing_usageday;
DROP TRIGGER earned_changed ON billing_usageday;
DROP FUNCTION billing_earned_added(), billing_earned_changed();
"""
# Writers wait: what they add must not be counted twice. The drain's stream keeps it for them.
SO_FAR = "LOCK TABLE billing_usageday IN SHARE ROW EXCLUSIVE MODE;" + summed(
    days_of("billing_usageday")
)


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0061_broken_rows_by_id"),
    ]

    operations = [
        migrations.CreateModel(
            name="EarnedDay",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("day", models.DateField()),
                ("model", models.CharField(max_length=200)),
                ("cost_pico", models.DecimalField(decimal_places=0, default=0, max_digits=38)),
                (
                    "supplier_cost_pico",
                    models.DecimalField(decimal_places=0, default=0, max_digits=38),
                ),
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
                        fields=("day", "tenant", "model"), name="earned_day_unique"
                    )
                ],
            },
        ),
        migrations.RunSQL(SO_FAR + ";" + TRIGGERS, reverse_sql=NO_TRIGGERS),
    ]
