"""Each seal says what all before it came to; its chain is a hash over that, anew for old ones."""

from django.db import migrations, models

ADD_UP = """
UPDATE billing_rowseal s SET rows_before = b.rows, digest_before = b.digest,
    chain = sha256(convert_to(
        concat_ws(':', s.what, s.after, b.rows + s.rows, b.digest + s.digest), 'UTF8'))
FROM (
    SELECT id, (sum(rows) OVER so_far)::bigint - rows AS rows,
        sum(digest) OVER so_far - digest AS digest
    FROM billing_rowseal WINDOW so_far AS (PARTITION BY what ORDER BY id)
) b WHERE b.id = s.id;
"""
DIGEST = {"max_digits": 38, "decimal_places": 0}


class Migration(migrations.Migration):
    dependencies = [("billing", "0057_purchases_stand")]

    operations = [
        migrations.AddField(
            model_name="rowseal",
            name="rows_before",
            field=models.BigIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rowseal",
            name="digest_before",
            field=models.DecimalField(default=0, **DIGEST),
            preserve_default=False,
        ),
        migrations.RunSQL(ADD_UP, reverse_sql=migrations.RunSQL.noop),
    ]
