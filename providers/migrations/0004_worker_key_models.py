"""A worker key may be limited to some models."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("providers", "0003_price_sources"),
    ]

    operations = [
        migrations.AddField(
            model_name="workerkey",
            name="models_allowed",
            field=models.JSONField(blank=True, default=list),
        ),
    ]
