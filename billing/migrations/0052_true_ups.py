"""Counts that came after the charge; once written only their note is added, once."""

import django.db.models.deletion
from django.db import migrations, models

STANDS = """
CREATE FUNCTION billing_true_up_stands() RETURNS trigger AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.note_id IS NOT NULL
        OR to_jsonb(NEW) - 'note_id' <> to_jsonb(OLD) - 'note_id' THEN
        RAISE EXCEPTION 'a count that came later is never changed'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER true_up_stands BEFORE UPDATE OR DELETE ON billing_trueup
    FOR EACH ROW EXECUTE FUNCTION billing_true_up_stands();
"""
FALLS = "DROP FUNCTION billing_true_up_stands() CASCADE"


class Migration(migrations.Migration):
    dependencies = [("billing", "0051_dated_plans")]

    operations = [
        migrations.CreateModel(
            name="TrueUp",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("request_id", models.UUIDField()),
                ("attempt", models.SmallIntegerField()),
                ("day", models.DateField()),
                ("input_tokens", models.BigIntegerField()),
                ("output_tokens", models.BigIntegerField()),
                ("charged_pico", models.BigIntegerField()),
                ("due_pico", models.BigIntegerField()),
                ("counted_at", models.DateTimeField()),
                (
                    "note",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="true_ups",
                        to="billing.adjustmentnote",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.tenant",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(
                            ("due_pico__lt", models.F("charged_pico")), ("note", None)
                        ),
                        fields=["tenant", "id"],
                        name="true_up_open",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("request_id", "attempt"), name="true_up_once"),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("due_pico__gte", 0), ("due_pico__lte", models.F("charged_pico"))
                        ),
                        name="true_up_downwards",
                    ),
                ],
            },
        ),
        migrations.RunSQL(STANDS, reverse_sql=FALLS),
    ]
