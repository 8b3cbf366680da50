"""Rollups are counted from the events that the drain wrote, by a position among these. All that was
counted from the streams is counted anew."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("providers", "0006_wanted_price")]

    operations = [
        migrations.RunSQL(
            "TRUNCATE providers_measurementrollup, providers_measurementcursor",
            reverse_sql=migrations.RunSQL.noop,
        ),
        migrations.RemoveField(model_name="measurementcursor", name="entry_id"),
        migrations.RemoveField(model_name="measurementcursor", name="shard"),
        migrations.AddField(
            model_name="measurementcursor",
            name="id",
            field=models.BigAutoField(
                auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
            ),
        ),
        migrations.AddField(
            model_name="measurementcursor",
            name="event_id",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="measurementrollup",
            name="seen_bits",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="measurementrollup",
            name="up_bits",
            field=models.BigIntegerField(default=0),
        ),
    ]
