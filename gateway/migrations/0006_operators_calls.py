"""Idempotent calls of operators, who act for no tenant."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0025_refunds"),
        ("gateway", "0005_team_cost_centre"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="idempotentcall", name="idempotent_call_unique"),
        migrations.AlterField(
            model_name="idempotentcall",
            name="tenant",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="billing.tenant",
            ),
        ),
        migrations.AddConstraint(
            model_name="idempotentcall",
            constraint=models.UniqueConstraint(
                fields=("tenant", "caller", "key_hash"),
                name="idempotent_call_unique",
                nulls_distinct=False,
            ),
        ),
    ]
