"""Credit that runs low is told like a budget that fills up."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0019_plan_assignments"),
    ]

    operations = [
        migrations.CreateModel(
            name="CreditThreshold",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("below_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("told_version", models.BigIntegerField(null=True)),
            ],
        ),
        migrations.AlterField(
            model_name="alertdelivery",
            name="alert",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="deliveries",
                to="billing.budgetalert",
            ),
        ),
        migrations.CreateModel(
            name="CreditAlert",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("below_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("left_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("occurred_at", models.DateTimeField()),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="billing.tenant",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="alertdelivery",
            name="credit_alert",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="deliveries",
                to="billing.creditalert",
            ),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=models.UniqueConstraint(
                fields=("credit_alert", "channel"), name="credit_alert_delivery_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="alertdelivery",
            constraint=models.CheckConstraint(
                condition=models.Q(("alert", None), ("credit_alert", None), _connector="XOR"),
                name="alert_delivery_of_one",
            ),
        ),
        migrations.AddField(
            model_name="creditthreshold",
            name="tenant",
            field=models.OneToOneField(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="credit_threshold",
                to="billing.tenant",
            ),
        ),
        migrations.AddIndex(
            model_name="creditalert",
            index=models.Index(
                fields=["tenant", "-occurred_at"], name="billing_cre_tenant__9965a5_idx"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditthreshold",
            constraint=models.CheckConstraint(
                condition=models.Q(("below_pico__gt", 0)), name="credit_threshold_positive"
            ),
        ),
    ]
