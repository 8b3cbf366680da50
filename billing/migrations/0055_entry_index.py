"""An account's entries by an index with their order, instead of one without it."""

import django.db.models.deletion
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0054_list_indexes")]

    operations = [
        AddIndexConcurrently(
            model_name="entry",
            index=models.Index(fields=["account", "-id"], name="entry_account"),
        ),
        migrations.AlterField(
            model_name="entry",
            name="account",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="entries",
                to="billing.account",
            ),
        ),
    ]
