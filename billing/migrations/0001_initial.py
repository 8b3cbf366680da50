import django.contrib.postgres.fields.ranges
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="InvariantCheck",
            fields=[
                ("name", models.CharField(max_length=60, primary_key=True, serialize=False)),
                ("holds", models.BooleanField()),
                ("detail", models.CharField(blank=True, max_length=400)),
                ("checked_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="ShardEpoch",
            fields=[
                ("shard", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("epoch", models.CharField(max_length=32)),
                ("rebuilt_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Sku",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("code", models.CharField(max_length=200, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name="TaskRun",
            fields=[
                ("name", models.CharField(max_length=80, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                ("lag_ms", models.BigIntegerField(default=0)),
                ("failed_at", models.DateTimeField(null=True)),
                ("failure", models.CharField(blank=True, max_length=400)),
            ],
        ),
        migrations.CreateModel(
            name="Tenant",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("slug", models.SlugField(max_length=64, unique=True)),
                ("name", models.CharField(max_length=120)),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "Active"), ("suspended", "Suspended")],
                        default="active",
                        max_length=16,
                    ),
                ),
                ("time_zone", models.CharField(default="UTC", max_length=64)),
                (
                    "credit_limit_pico",
                    models.DecimalField(decimal_places=0, default=0, max_digits=38),
                ),
                ("credit_version", models.BigIntegerField(default=0)),
                ("max_output_tokens", models.PositiveIntegerField(default=4096)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="PriceVersion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "service_tier",
                    models.SmallIntegerField(
                        choices=[(0, "Default"), (1, "Flex"), (2, "Priority"), (3, "Batch")],
                        default=0,
                    ),
                ),
                ("context_over", models.IntegerField(default=0)),
                ("during", django.contrib.postgres.fields.ranges.DateTimeRangeField()),
                ("input_pico", models.BigIntegerField()),
                ("cache_read_pico", models.BigIntegerField()),
                ("cache_write_5m_pico", models.BigIntegerField()),
                ("cache_write_1h_pico", models.BigIntegerField()),
                ("output_pico", models.BigIntegerField()),
                ("reasoning_pico", models.BigIntegerField()),
                ("input_audio_pico", models.BigIntegerField(blank=True, null=True)),
                ("input_image_pico", models.BigIntegerField(blank=True, null=True)),
                ("output_audio_pico", models.BigIntegerField(blank=True, null=True)),
                ("request_pico", models.BigIntegerField(default=0)),
                ("free", models.BooleanField(default=False)),
                ("source", models.CharField(max_length=120)),
                ("note", models.CharField(blank=True, max_length=300)),
                ("recorded_by", models.CharField(max_length=150)),
                ("recorded_at", models.DateTimeField(auto_now_add=True)),
                (
                    "sku",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="prices",
                        to="billing.sku",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="RevokedKey",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("api_key_id", models.BigIntegerField(unique=True)),
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
        migrations.CreateModel(
            name="RateLimit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "scope_kind",
                    models.CharField(
                        choices=[("tenant", "Tenant"), ("team", "Team"), ("key", "Key")],
                        max_length=8,
                    ),
                ),
                ("scope_id", models.BigIntegerField()),
                ("rpm", models.PositiveIntegerField(blank=True, null=True)),
                ("tpm", models.PositiveIntegerField(blank=True, null=True)),
                ("concurrency", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="rate_limits",
                        to="billing.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Quota",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "scope_kind",
                    models.CharField(
                        choices=[("tenant", "Tenant"), ("team", "Team"), ("key", "Key")],
                        max_length=8,
                    ),
                ),
                ("scope_id", models.BigIntegerField()),
                (
                    "window",
                    models.CharField(
                        choices=[("day", "Day"), ("month", "Month"), ("lifetime", "Lifetime")],
                        max_length=8,
                    ),
                ),
                ("limit_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quotas",
                        to="billing.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Account",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("tenant_credit", "Tenant Credit"),
                            ("cash", "Cash"),
                            ("promo_expense", "Promo Expense"),
                            ("revenue", "Revenue"),
                            ("provider_payable", "Provider Payable"),
                            ("cost_of_sales", "Cost Of Sales"),
                            ("provider_waste", "Provider Waste"),
                            ("supplier_exposure", "Supplier Exposure"),
                            ("overage_review", "Overage Review"),
                            ("rounding", "Rounding"),
                        ],
                        max_length=32,
                    ),
                ),
                ("supplier", models.CharField(blank=True, default="", max_length=80)),
                (
                    "tenant",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="accounts",
                        to="billing.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Transfer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "code",
                    models.CharField(
                        choices=[
                            ("grant", "Grant"),
                            ("usage", "Usage"),
                            ("correction", "Correction"),
                        ],
                        max_length=16,
                    ),
                ),
                ("memo", models.CharField(blank=True, max_length=200)),
                ("idempotency_key", models.CharField(max_length=100, unique=True)),
                ("created_at", models.DateTimeField(auto_now_add=True, db_index=True)),
                (
                    "corrects",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.transfer",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Entry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("amount_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                (
                    "account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="entries",
                        to="billing.account",
                    ),
                ),
                (
                    "transfer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="entries",
                        to="billing.transfer",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="CreditGrant",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("amount_pico", models.DecimalField(decimal_places=0, max_digits=38)),
                ("reason", models.CharField(max_length=200)),
                ("created_by", models.CharField(max_length=150)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="grants",
                        to="billing.tenant",
                    ),
                ),
                (
                    "transfer",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, to="billing.transfer"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="UsageEvent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("request_id", models.UUIDField()),
                ("attempt", models.SmallIntegerField()),
                ("day", models.DateField()),
                ("team_id", models.BigIntegerField(null=True)),
                ("api_key_id", models.BigIntegerField(null=True)),
                ("session_hash", models.CharField(blank=True, default="", max_length=64)),
                ("sku", models.CharField(max_length=200)),
                ("offer_id", models.BigIntegerField(null=True)),
                ("supplier", models.CharField(max_length=80)),
                ("model", models.CharField(max_length=200)),
                ("outcome", models.CharField(max_length=32)),
                (
                    "usage_source",
                    models.CharField(
                        choices=[
                            ("provider", "Provider"),
                            ("counted", "Counted"),
                            ("estimated", "Estimated"),
                            ("none", "None"),
                        ],
                        max_length=16,
                    ),
                ),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("cache_read_tokens", models.BigIntegerField(default=0)),
                ("cache_write_5m_tokens", models.BigIntegerField(default=0)),
                ("cache_write_1h_tokens", models.BigIntegerField(default=0)),
                ("input_audio_tokens", models.BigIntegerField(default=0)),
                ("input_image_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("reasoning_tokens", models.BigIntegerField(default=0)),
                ("output_audio_tokens", models.BigIntegerField(default=0)),
                ("rated_pico", models.BigIntegerField(default=0)),
                ("tenant_cost_pico", models.BigIntegerField(default=0)),
                ("supplier_cost_pico", models.BigIntegerField(default=0)),
                ("overage_pico", models.BigIntegerField(default=0)),
                ("hold_nano", models.BigIntegerField(default=0)),
                ("charged_nano", models.BigIntegerField(default=0)),
                ("occurred_at", models.DateTimeField()),
                ("settled_at", models.DateTimeField()),
                ("stream_id", models.CharField(max_length=40)),
                ("body_hash", models.BinaryField(max_length=32)),
                ("detail", models.JSONField(default=dict)),
                (
                    "state",
                    models.CharField(
                        choices=[("posted", "Posted"), ("quarantined", "Quarantined")],
                        default="posted",
                        max_length=16,
                    ),
                ),
                ("quarantine_reason", models.CharField(blank=True, default="", max_length=200)),
                ("drained_at", models.DateTimeField(auto_now_add=True)),
                (
                    "price_version",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.priceversion",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, to="billing.tenant"
                    ),
                ),
                (
                    "transfer",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="usage_events",
                        to="billing.transfer",
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="priceversion",
            index=models.Index(
                fields=["sku", "service_tier", "context_over"], name="billing_pri_sku_id_d70d66_idx"
            ),
        ),
        migrations.AddConstraint(
            model_name="priceversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("context_over__gte", 0),
                    models.Q(("input_pico__gte", 0), ("input_pico__isnull", True), _connector="OR"),
                    models.Q(
                        ("cache_read_pico__gte", 0),
                        ("cache_read_pico__isnull", True),
                        _connector="OR",
                    ),
                    models.Q(
                        ("cache_write_5m_pico__gte", 0),
                        ("cache_write_5m_pico__isnull", True),
                        _connector="OR",
                    ),
                    models.Q(
                        ("cache_write_1h_pico__gte", 0),
                        ("cache_write_1h_pico__isnull", True),
                        _connector="OR",
                    ),
                    models.Q(
                        ("output_pico__gte", 0), ("output_pico__isnull", True), _connector="OR"
                    ),
                    models.Q(
                        ("reasoning_pico__gte", 0),
                        ("reasoning_pico__isnull", True),
                        _connector="OR",
                    ),
                    models.Q(
                        ("input_audio_pico__gte", 0),
                        ("input_audio_pico__isnull", True),
                        _connector="OR",
                    ),
                    models.Q(
                        ("input_image_pico__gte", 0),
                        ("input_image_pico__isnull", True),
                        _connector="OR",
                    ),
                    models.Q(
                        ("output_audio_pico__gte", 0),
                        ("output_audio_pico__isnull", True),
                        _connector="OR",
                    ),
                    models.Q(
                        ("request_pico__gte", 0), ("request_pico__isnull", True), _connector="OR"
                    ),
                ),
                name="price_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("free", True),
                    models.Q(("input_pico__gt", 0), ("input_pico__isnull", False)),
                    models.Q(("cache_read_pico__gt", 0), ("cache_read_pico__isnull", False)),
                    models.Q(
                        ("cache_write_5m_pico__gt", 0), ("cache_write_5m_pico__isnull", False)
                    ),
                    models.Q(
                        ("cache_write_1h_pico__gt", 0), ("cache_write_1h_pico__isnull", False)
                    ),
                    models.Q(("output_pico__gt", 0), ("output_pico__isnull", False)),
                    models.Q(("reasoning_pico__gt", 0), ("reasoning_pico__isnull", False)),
                    models.Q(("input_audio_pico__gt", 0), ("input_audio_pico__isnull", False)),
                    models.Q(("input_image_pico__gt", 0), ("input_image_pico__isnull", False)),
                    models.Q(("output_audio_pico__gt", 0), ("output_audio_pico__isnull", False)),
                    models.Q(("request_pico__gt", 0), ("request_pico__isnull", False)),
                    _connector="OR",
                ),
                name="price_zero_only_if_free",
            ),
        ),
        migrations.AddConstraint(
            model_name="ratelimit",
            constraint=models.UniqueConstraint(
                fields=("scope_kind", "scope_id"), name="rate_limit_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="quota",
            constraint=models.UniqueConstraint(
                fields=("scope_kind", "scope_id", "window"), name="quota_unique"
            ),
        ),
        migrations.AddConstraint(
            model_name="quota",
            constraint=models.CheckConstraint(
                condition=models.Q(("limit_pico__gte", 0)), name="quota_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.UniqueConstraint(
                fields=("kind", "tenant", "supplier"), name="account_unique", nulls_distinct=False
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_pico", 0), _negated=True), name="credit_grant_not_zero"
            ),
        ),
        migrations.AddIndex(
            model_name="usageevent",
            index=models.Index(
                fields=["tenant", "-occurred_at"], name="billing_usa_tenant__4eeabd_idx"
            ),
        ),
        migrations.AddIndex(
            model_name="usageevent",
            index=models.Index(fields=["tenant", "-id"], name="billing_usa_tenant__45a0f8_idx"),
        ),
        migrations.AddIndex(
            model_name="usageevent",
            index=models.Index(
                condition=models.Q(("state", "quarantined")),
                fields=["state"],
                name="usage_quarantined",
            ),
        ),
        migrations.AddConstraint(
            model_name="usageevent",
            constraint=models.UniqueConstraint(
                fields=("request_id", "attempt", "day"), name="usage_event_unique"
            ),
        ),
    ]
