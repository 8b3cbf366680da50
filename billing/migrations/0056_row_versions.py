"""Every version of what may change of money, kept by triggers and begun with what is there now."""

from django.db import migrations, models

# As text it must not depend on who asks: neither on a session's zone nor on its style of dates.
FACTS = """
CREATE FUNCTION billing_facts_of(said anyelement, without text[]) RETURNS jsonb
    LANGUAGE sql STABLE SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' AS $$
    SELECT to_jsonb(said) - without
$$;
"""
KEEP = """
CREATE FUNCTION billing_keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    without text[] := coalesce(TG_ARGV, '{}');
    said jsonb := CASE WHEN TG_OP <> 'DELETE' THEN billing_facts_of(NEW, without) END;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF said = billing_facts_of(OLD, without) THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO billing_rowversion (table_name, row_id, facts, kept_at)
        VALUES (TG_TABLE_NAME, CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END, said, now());
    RETURN NULL;
END $$;
CREATE TRIGGER row_version_append_only BEFORE UPDATE OR DELETE ON billing_rowversion
    FOR EACH ROW EXECUTE FUNCTION billing_append_only();
"""
# `row_versions.KEPT` has the same list.
KEPT = {
    "billing_topup": ("tries", "due_at"),
    "billing_dispute": (),
    "billing_claim": (),
    "billing_priceversion": (),
    "billing_pricerule": (),
    "billing_pricelist": (),
    "billing_planassignment": (),
    "billing_billrate": (),
    "billing_billingprofile": ("legal_name", "address", "email", "reference"),
    "billing_tenant": ("credit_version",),
    "billing_numberseries": (),
}


def _begin(table: str, without: tuple[str, ...]) -> str:
    names = ", ".join(f"'{name}'" for name in without)
    return f"""
    CREATE TRIGGER version_kept AFTER INSERT OR UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION billing_keep_version({names});
    INSERT INTO billing_rowversion (table_name, row_id, facts, kept_at)
        SELECT '{table}', r.id, billing_facts_of(r, ARRAY[{names}]::text[]), now()
        FROM {table} r ORDER BY r.id;
    """


def _end(table: str) -> str:
    return f"DROP TRIGGER version_kept ON {table};"


class Migration(migrations.Migration):
    dependencies = [("billing", "0055_entry_index")]

    operations = [
        migrations.CreateModel(
            name="RowVersion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("table_name", models.CharField(max_length=63)),
                ("row_id", models.BigIntegerField()),
                ("facts", models.JSONField(null=True)),
                ("kept_at", models.DateTimeField()),
            ],
            options={
                "indexes": [
                    models.Index(fields=["table_name", "row_id", "id"], name="row_version_latest")
                ],
            },
        ),
        migrations.RunSQL(FACTS, reverse_sql="DROP FUNCTION billing_facts_of;"),
        migrations.RunSQL(
            KEEP,
            reverse_sql="DROP TRIGGER row_version_append_only ON billing_rowversion;"
            " DROP FUNCTION billing_keep_version;",
        ),
        *(
            migrations.RunSQL(_begin(table, without), reverse_sql=_end(table))
            for table, without in KEPT.items()
        ),
    ]
