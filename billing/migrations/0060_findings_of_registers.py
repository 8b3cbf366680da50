"""A register that is wrong is a finding too."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0059_requests_by_their_ids"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="finding",
            options={},
        ),
        migrations.RemoveConstraint(
            model_name="finding",
            name="finding_open_once",
        ),
        migrations.AddField(
            model_name="finding",
            name="register",
            field=models.CharField(blank=True, db_default="", default="", max_length=2500),
        ),
        migrations.AddConstraint(
            model_name="finding",
            constraint=models.UniqueConstraint(
                condition=models.Q(("resolved_at", None)),
                fields=("what", "first", "register"),
                name="finding_open_once",
            ),
        ),
    ]
