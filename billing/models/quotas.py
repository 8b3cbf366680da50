"""Limits: spend caps per window, and rates. Scopes are opaque (kind, id) pairs to billing."""

from django.db import models


class ScopeKind(models.TextChoices):
    TENANT = "tenant"
    TEAM = "team"
    KEY = "key"


class Quota(models.Model):
    """A spend cap per window. Windows are UTC; a hold keeps the window it was admitted in."""

    class Window(models.TextChoices):
        DAY = "day"
        MONTH = "month"
        LIFETIME = "lifetime"

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="quotas")
    scope_kind = models.CharField(max_length=8, choices=ScopeKind)
    scope_id = models.BigIntegerField()
    window = models.CharField(max_length=8, choices=Window)
    limit_pico = models.DecimalField(max_digits=38, decimal_places=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["scope_kind", "scope_id", "window"], name="quota_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(limit_pico__gte=0), name="quota_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope_kind} {self.scope_id} per {self.window}"


class RateLimit(models.Model):
    """Requests and tokens per minute, and open requests at once; null means no limit."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.CASCADE, related_name="rate_limits"
    )
    scope_kind = models.CharField(max_length=8, choices=ScopeKind)
    scope_id = models.BigIntegerField()
    rpm = models.PositiveIntegerField(null=True, blank=True)
    tpm = models.PositiveIntegerField(null=True, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope_kind", "scope_id"], name="rate_limit_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.scope_kind} {self.scope_id}"


class RevokedKey(models.Model):
    """An API key that must never hold again: what a rebuild tells Redis about keys."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="+")
    api_key_id = models.BigIntegerField(unique=True)

    def __str__(self) -> str:
        return f"key {self.api_key_id}"
