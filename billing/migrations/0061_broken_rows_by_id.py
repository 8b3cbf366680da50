"""What is wrong is remembered by its id, and not looked for again."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0060_findings_of_registers"),
    ]

    operations = [
        migrations.AddField(
            model_name="invariantcheck",
            name="broken_ids",
            field=models.JSONField(db_default=models.Value([], models.JSONField()), default=list),
        ),
    ]
