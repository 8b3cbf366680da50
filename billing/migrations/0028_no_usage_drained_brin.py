"""The BRIN of the same column goes: under load its summaries came too late to be of use."""

from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0027_usage_drained_btree")]

    operations = [RemoveIndexConcurrently(model_name="usageevent", name="usage_drained_brin")]
