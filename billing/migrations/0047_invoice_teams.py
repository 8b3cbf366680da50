"""Which teams used what stands with an invoice: its page reads no events."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0046_history_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="invoice",
            name="teams",
            field=models.JSONField(null=True),
        ),
    ]
