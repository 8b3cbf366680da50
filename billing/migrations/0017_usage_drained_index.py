"""An index on the usage table, made while events go on being written.

Every later index on this table is made like this one: concurrently, in a migration of its own
that is no transaction.
"""

from django.contrib.postgres.indexes import BrinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0016_rollup_triggers")]

    operations = [
        AddIndexConcurrently(
            model_name="usageevent",
            index=BrinIndex(
                fields=["drained_at"],
                autosummarize=True,
                pages_per_range=32,
                name="usage_drained_brin",
            ),
        ),
    ]
