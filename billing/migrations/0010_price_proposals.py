"""Price changes that wait for a decision, and disagreements with a second source."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0009_rerating"),
    ]

    operations = [
        migrations.CreateModel(
            name="PriceDisagreement",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("sku", models.CharField(max_length=200)),
                ("rate", models.CharField(max_length=24)),
                ("source", models.CharField(max_length=120)),
                ("ours_pico", models.BigIntegerField()),
                ("theirs_pico", models.BigIntegerField()),
                ("found_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at", None)),
                        fields=("sku", "rate", "source"),
                        name="price_disagreement_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="PriceProposal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("sku", models.CharField(max_length=200)),
                (
                    "service_tier",
                    models.SmallIntegerField(
                        choices=[(0, "Default"), (1, "Flex"), (2, "Priority"), (3, "Batch")],
                        default=0,
                    ),
                ),
                ("context_over", models.IntegerField(default=0)),
                ("from_minute", models.SmallIntegerField(default=0)),
                ("to_minute", models.SmallIntegerField(default=0)),
                (
                    "kind",
                    models.CharField(
                        choices=[("new", "New"), ("change", "Change"), ("end", "no longer listed")],
                        max_length=8,
                    ),
                ),
                ("begins_at", models.DateTimeField(null=True)),
                ("rates", models.JSONField(null=True)),
                ("change_ppm", models.BigIntegerField(null=True)),
                ("source", models.CharField(max_length=120)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("approved", "Approved"),
                            ("rejected", "Rejected"),
                            ("superseded", "superseded by a newer import"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                ("proposed_at", models.DateTimeField()),
                ("decided_at", models.DateTimeField(null=True)),
                ("decided_by", models.CharField(blank=True, max_length=150)),
                (
                    "replaces",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="proposals",
                        to="billing.priceversion",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["state", "-proposed_at"], name="billing_pri_state_a744e9_idx"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "pending")),
                        fields=(
                            "sku",
                            "service_tier",
                            "context_over",
                            "from_minute",
                            "to_minute",
                            "begins_at",
                        ),
                        name="price_proposal_one_pending",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
    ]
