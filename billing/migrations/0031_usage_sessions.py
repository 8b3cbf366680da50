"""What sessions cost, summed by PostgreSQL: a rebuild of registers need not read their calls."""

import django.db.models.deletion
from django.db import migrations, models

KEY = "tenant_id, session_hash, day"
DEBITED = (
    "CASE state WHEN 'quarantined' THEN 1000::numeric * charged_nano ELSE tenant_cost_pico END"
)


def summed(calls: str) -> str:
    """Add these rows (`sign` 1) or take them off (`sign` -1), in the order of the key: so no two
    writers deadlock."""
    return f"""
        INSERT INTO billing_usagesession AS kept
            ({KEY}, debited_pico, first_at, last_at, ended_at)
        SELECT tenant_id, session_hash, (occurred_at AT TIME ZONE 'UTC')::date AS day,
            sum(sign * {DEBITED}), min(occurred_at), max(occurred_at),
            max(greatest(occurred_at, settled_at))
        FROM ({calls}) calls GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT ({KEY}) DO UPDATE SET
            debited_pico = kept.debited_pico + excluded.debited_pico,
            first_at = least(kept.first_at, excluded.first_at),
            last_at = greatest(kept.last_at, excluded.last_at),
            ended_at = greatest(kept.ended_at, excluded.ended_at)
    """


def calls_of(table: str, sign: int = 1) -> str:
    return (
        f"SELECT {sign} AS sign, tenant_id, session_hash, state, charged_nano, tenant_cost_pico,"
        f" occurred_at, settled_at FROM {table} WHERE session_hash <> ''"
    )


def trigger(name: str, event: str, tables: str, calls: str) -> str:
    """Planned anew each time, as the other rollups are."""
    return f"""
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE $sql${summed(calls)}$sql$;
    RETURN NULL;
END $$;
CREATE TRIGGER {name.removeprefix("billing_")} AFTER {event} ON billing_usageevent
    REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION {name}();
"""


TRIGGERS = trigger(
    "billing_sessions_added", "INSERT", "NEW TABLE AS fresh", calls_of("fresh")
) + trigger(
    "billing_sessions_changed",
    "UPDATE",
    "NEW TABLE AS fresh OLD TABLE AS stale",
    f"{calls_of('fresh')} UNION ALL {calls_of('stale', -1)}",
)
# All calls of the sessions that may still go on. Writers wait: what they add must not be counted
# twice. The drain's stream keeps it for them.
SO_FAR = "LOCK TABLE billing_usageevent IN SHARE ROW EXCLUSIVE MODE;" + summed(
    f"""
    {calls_of("billing_usageevent")} AND (tenant_id, session_hash) IN (
        SELECT t.id, lately.session_hash FROM billing_tenant t CROSS JOIN LATERAL (
            SELECT DISTINCT session_hash FROM billing_usageevent u WHERE u.tenant_id = t.id
                AND u.occurred_at > now() - interval '7 days' AND u.session_hash <> '') lately)
    """
)


class Migration(migrations.Migration):
    dependencies = [("billing", "0030_covered_spans_stand")]

    operations = [
        migrations.CreateModel(
            name="UsageSession",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("session_hash", models.CharField(max_length=64)),
                ("day", models.DateField()),
                ("debited_pico", models.DecimalField(decimal_places=0, default=0, max_digits=38)),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField()),
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
        ),
        migrations.AddConstraint(
            model_name="usagesession",
            constraint=models.UniqueConstraint(
                fields=("tenant", "session_hash", "day"), name="usage_session_unique"
            ),
        ),
        migrations.AddIndex(
            model_name="usagesession",
            index=models.Index(fields=["tenant", "day"], name="usage_session_day"),
        ),
        migrations.AddField(
            model_name="shardepoch",
            name="failed_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name="shardepoch",
            name="epoch",
            field=models.CharField(blank=True, default="", max_length=32),
        ),
        migrations.AlterField(
            model_name="shardepoch",
            name="rebuilt_at",
            field=models.DateTimeField(null=True),
        ),
        # Room on each page, so that another call of a session touches no index.
        migrations.RunSQL(
            "ALTER TABLE billing_usagesession SET (fillfactor = 70);",
            reverse_sql=migrations.RunSQL.noop,
        ),
        migrations.RunSQL(SO_FAR, reverse_sql=migrations.RunSQL.noop),
        migrations.RunSQL(TRIGGERS, reverse_sql=migrations.RunSQL.noop),
        migrations.RemoveIndex(model_name="usageevent", name="usage_session"),
    ]
