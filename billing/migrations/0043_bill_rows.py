"""Bills keep every row of their file: what was a day and model's line is a used row of it."""

import django.db.models.deletion
from django.db import migrations, models

NUMBERED = """
    UPDATE billing_providerbillrow r
    SET number = n.number, state = 'used', amount = r.cost_pico / 1000000000000::numeric
    FROM (SELECT id, row_number() OVER (PARTITION BY bill_id ORDER BY day, model) AS number
          FROM billing_providerbillrow) n
    WHERE n.id = r.id
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0042_limit_since"),
    ]

    operations = [
        migrations.AddField(
            model_name="providerbill",
            name="stated_pico",
            field=models.DecimalField(decimal_places=0, max_digits=38, null=True),
        ),
        migrations.CreateModel(
            name="BillRate",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("currency", models.CharField(max_length=10)),
                ("pico_per_unit", models.BigIntegerField()),
                ("day", models.DateField()),
                ("source", models.CharField(max_length=120)),
                ("stated_by", models.CharField(max_length=150)),
                ("stated_at", models.DateTimeField()),
                (
                    "bill",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="rates",
                        to="billing.providerbill",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="billrate",
            constraint=models.UniqueConstraint(fields=("bill", "currency"), name="bill_rate_once"),
        ),
        migrations.AddConstraint(
            model_name="billrate",
            constraint=models.CheckConstraint(
                condition=models.Q(("pico_per_unit__gt", 0)), name="bill_rate_positive"
            ),
        ),
        migrations.RemoveConstraint(
            model_name="providerbillline", name="provider_bill_line_unique"
        ),
        migrations.RenameModel(old_name="ProviderBillLine", new_name="ProviderBillRow"),
        migrations.AlterField(
            model_name="providerbillrow",
            name="bill",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="rows",
                to="billing.providerbill",
            ),
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="number",
            field=models.PositiveIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="state",
            field=models.CharField(
                choices=[
                    ("used", "used"),
                    ("open", "to be decided"),
                    ("carried", "owed, of no day or model"),
                    ("left_out", "left out"),
                ],
                default="open",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="why",
            field=models.CharField(blank=True, max_length=200, default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="amount",
            field=models.DecimalField(decimal_places=20, max_digits=40, null=True),
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="currency",
            field=models.CharField(default="USD", max_length=10),
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="note",
            field=models.CharField(blank=True, max_length=200, default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="decided_by",
            field=models.CharField(blank=True, max_length=150, default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="providerbillrow",
            name="decided_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name="providerbillrow",
            name="day",
            field=models.DateField(null=True),
        ),
        migrations.AlterField(
            model_name="providerbillrow",
            name="model",
            field=models.CharField(blank=True, max_length=200),
        ),
        migrations.AlterField(
            model_name="providerbillrow",
            name="input_tokens",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AlterField(
            model_name="providerbillrow",
            name="output_tokens",
            field=models.BigIntegerField(default=0),
        ),
        # Constraints follow in a transaction of their own: PostgreSQL adds none to rows with
        # pending trigger events.
        migrations.RunSQL(NUMBERED, migrations.RunSQL.noop),
    ]
