"""How much calls of a key used so far: what an expected hold and a quote rest on. No money."""

from django.db import models


class CallCount(models.Model):
    """Good answers of one key at one model on one day, counted by size.

    For output, `bucket` is that of the tokens, `total` their sum; for input, of the tokens in
    thousandths of the bound that a strict hold assumes, and the sum of those.
    """

    class Side(models.TextChoices):
        INPUT = "input"
        OUTPUT = "output"

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="+")
    api_key_id = models.BigIntegerField()
    model = models.CharField(max_length=200)
    day = models.DateField()
    side = models.CharField(max_length=6, choices=Side)
    bucket = models.PositiveSmallIntegerField()
    calls = models.BigIntegerField()
    total = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "model", "api_key_id", "side", "bucket", "day"],
                name="call_count_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.side} {self.bucket}: {self.calls}"


class CallProfile(models.Model):
    """What calls at one model usually use, by one key's past, or the tenant's where it is null.
    Percentiles are upper edges of buckets; input in thousandths of the bound."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.CASCADE, related_name="call_profiles"
    )
    api_key_id = models.BigIntegerField(null=True)
    model = models.CharField(max_length=200)
    calls = models.BigIntegerField()
    output_mean = models.BigIntegerField()
    output_p95 = models.BigIntegerField()
    output_p99 = models.BigIntegerField()
    input_mean = models.PositiveIntegerField()
    input_p95 = models.PositiveIntegerField()
    input_p99 = models.PositiveIntegerField()
    refreshed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "model", "api_key_id"],
                nulls_distinct=False,
                name="call_profile_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model}: {self.calls} calls"


class CallMark(models.Model):
    """Up to which usage event calls have been counted; one row."""

    id = models.SmallIntegerField(primary_key=True)
    last_event_id = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.last_event_id)
