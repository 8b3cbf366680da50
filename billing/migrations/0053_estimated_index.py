"""Which events were charged an estimate, made while events go on being written."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0052_true_ups")]

    operations = [
        AddIndexConcurrently(
            model_name="usageevent",
            index=models.Index(
                condition=models.Q(("usage_source__in", ["recounted", "measured_ratio", "bytes"])),
                fields=["offer_id", "-drained_at"],
                name="usage_estimated",
            ),
        ),
    ]
