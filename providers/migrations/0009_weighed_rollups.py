"""What was served is kept by caller and size, and speeds by caller, so that none weighs too much; what
was counted without that is counted anew, from the events."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("providers", "0008_pool_salt")]

    operations = [
        migrations.RunSQL(
            "TRUNCATE providers_measurementrollup, providers_measurementcursor",
            reverse_sql=migrations.RunSQL.noop,
        ),
        migrations.AddField(
            model_name="measurementrollup",
            name="paid_output_tokens",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="measurementrollup",
            name="served",
            field=models.JSONField(default=dict),
        ),
    ]
