"""When events were drained, as a B-tree: its rows come in order and many at a time, so it is small."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0026_seal_digests")]

    operations = [
        AddIndexConcurrently(
            model_name="usageevent",
            index=models.Index(fields=["drained_at"], name="usage_drained"),
        ),
    ]
