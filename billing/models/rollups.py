"""Sums of usage events and entries, kept by PostgreSQL in the transaction that writes these.

Exact at every commit, whoever wrote: triggers add what an insert brings and the difference that
an update makes. Nothing else writes here. Pages and caps read these, so that what
they cost does not grow with the number of events.

Tokens are those of posted events. A request counts where its first row is. `debited_pico` is what
Redis has: the cost of posted events, and what was debited for quarantined ones.
"""

from django.db import models


class UsageDay(models.Model):
    """What one key used of one sku at one price on one day, which is the requests' own (UTC)."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, db_constraint=False, db_index=False
    )
    day = models.DateField()
    team_id = models.BigIntegerField(null=True)
    api_key_id = models.BigIntegerField(null=True)
    sku = models.CharField(max_length=200)
    supplier = models.CharField(max_length=80)
    model = models.CharField(max_length=200)
    price_version = models.ForeignKey(
        "billing.PriceVersion",
        on_delete=models.PROTECT,
        null=True,
        db_constraint=False,
        db_index=False,
    )
    attempts = models.BigIntegerField(default=0)
    requests = models.BigIntegerField(default=0)
    input_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    cache_read_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    cache_write_5m_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    cache_write_1h_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    input_audio_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    input_image_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    output_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    reasoning_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    output_audio_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    cost_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    supplier_cost_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    overage_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    debited_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    last_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "tenant",
                    "day",
                    "team_id",
                    "api_key_id",
                    "sku",
                    "supplier",
                    "model",
                    "price_version",
                ],
                nulls_distinct=False,
                name="usage_day_unique",
            ),
        ]
        # What a seller sold, and what one sku was used for: of all tenants.
        indexes = [
            models.Index(fields=["supplier", "day"], name="usage_day_supplier"),
            models.Index(fields=["sku", "day"], name="usage_day_sku"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.day} {self.sku}"


class UsageHour(models.Model):
    """What one tenant used of one sku at one price within an hour of attempts (UTC). `paid` tells
    attempts that the tenant pays something for from the rest."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, db_constraint=False, db_index=False
    )
    hour = models.DateTimeField()
    day = models.DateField()
    sku = models.CharField(max_length=200)
    supplier = models.CharField(max_length=80)
    model = models.CharField(max_length=200)
    price_version = models.ForeignKey(
        "billing.PriceVersion",
        on_delete=models.PROTECT,
        null=True,
        db_constraint=False,
        db_index=False,
    )
    paid = models.BooleanField()
    attempts = models.BigIntegerField(default=0)
    requests = models.BigIntegerField(default=0)
    input_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    cache_read_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    output_tokens = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    cost_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "tenant",
                    "hour",
                    "day",
                    "sku",
                    "supplier",
                    "model",
                    "price_version",
                    "paid",
                ],
                nulls_distinct=False,
                name="usage_hour_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.hour} {self.sku}"


class EarnedDay(models.Model):
    """What one tenant's use of one model brought on one day, and what its sellers take for it: sums
    of `UsageDay` over keys, offers and prices, however many there are."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, db_constraint=False, db_index=False
    )
    day = models.DateField()
    model = models.CharField(max_length=200)
    cost_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    supplier_cost_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["day", "tenant", "model"], name="earned_day_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.day} {self.model}"


class UsageSession(models.Model):
    """What the calls of one session came to on one day (UTC, by the attempts): from the first that
    began to the last, and until the last had ended. Forgotten when the session is long over."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, db_constraint=False, db_index=False
    )
    session_hash = models.CharField(max_length=64)
    day = models.DateField()
    debited_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    ended_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "session_hash", "day"], name="usage_session_unique"
            ),
        ]
        # Which sessions may be live; by the day, so that another call touches no index.
        indexes = [models.Index(fields=["tenant", "day"], name="usage_session_day")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.session_hash} {self.day}"


class AccountSum(models.Model):
    """What the entries of one account come to, by the code and the tenant of their transfers.

    By tenant, so that two drains, which never have a tenant in common, never wait for each other
    at a house account.
    """

    account = models.ForeignKey(
        "billing.Account",
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        related_name="sums",
    )
    code = models.CharField(max_length=16)
    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, null=True, db_constraint=False, db_index=False
    )
    entries = models.BigIntegerField(default=0)
    amount_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "code", "tenant"],
                nulls_distinct=False,
                name="account_sum_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id} {self.code} {self.tenant_id}"
