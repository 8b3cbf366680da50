"""No line was ever of this kind: corrections are credit notes and grants."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0017_usage_drained_index"),
    ]

    operations = [
        migrations.AlterField(
            model_name="invoiceline",
            name="kind",
            field=models.CharField(
                choices=[
                    ("usage", "Usage"),
                    ("late", "from an earlier period"),
                    ("partial", "charged in part"),
                ],
                max_length=10,
            ),
        ),
    ]
