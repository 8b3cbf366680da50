"""Small seals of all rows of money, and what is found altered since."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0047_invoice_teams"),
    ]

    operations = [
        migrations.CreateModel(
            name="Finding",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("what", models.CharField(max_length=40)),
                ("first", models.BigIntegerField()),
                ("after", models.BigIntegerField()),
                ("detail", models.CharField(max_length=400)),
                ("found_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                ("digest", models.DecimalField(decimal_places=0, max_digits=38, null=True)),
                ("reason", models.CharField(blank=True, max_length=200)),
                ("resolved_by", models.CharField(blank=True, max_length=150)),
                ("resolved_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="RowSeal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("what", models.CharField(max_length=40)),
                ("first", models.BigIntegerField()),
                ("after", models.BigIntegerField()),
                ("rows", models.BigIntegerField()),
                ("digest", models.DecimalField(decimal_places=0, max_digits=38)),
                ("chain", models.BinaryField(max_length=32)),
                ("sealed_at", models.DateTimeField()),
            ],
        ),
        migrations.AddIndex(
            model_name="finding",
            index=models.Index(fields=["what", "first"], name="finding_of_rows"),
        ),
        migrations.AddConstraint(
            model_name="finding",
            constraint=models.UniqueConstraint(
                condition=models.Q(("resolved_at", None)),
                fields=("what", "first"),
                name="finding_open_once",
            ),
        ),
        migrations.AddIndex(
            model_name="rowseal",
            index=models.Index(fields=["what", "id"], name="row_seal_in_order"),
        ),
        migrations.AddConstraint(
            model_name="rowseal",
            constraint=models.UniqueConstraint(fields=("what", "first"), name="row_seal_once"),
        ),
    ]
