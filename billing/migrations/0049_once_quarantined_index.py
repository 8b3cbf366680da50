"""Which events were ever in quarantine, made while events go on being written."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0048_row_seals")]

    operations = [
        AddIndexConcurrently(
            model_name="usageevent",
            index=models.Index(
                condition=models.Q(("quarantine_reason", ""), _negated=True),
                fields=["id"],
                name="usage_once_quarantined",
            ),
        ),
    ]
