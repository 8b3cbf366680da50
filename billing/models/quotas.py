"""Limits: spend caps per window, and rates. Scopes are opaque (kind, id) pairs to billing."""

from datetime import datetime

from django.db import models

from billing.kinds import Window
from billing.snapshot_rows import SnapshotRow


class ScopeKind(models.TextChoices):
    """`model` and `provider` are a tenant's spending on one of them; `session` is each of its
    sessions alike."""

    TENANT = "tenant"
    TEAM = "team"
    KEY = "key"
    MODEL = "model"
    PROVIDER = "provider"
    SESSION = "session"


# What rates are counted for.
RATED_SCOPES = [(kind.value, kind.label) for kind in list(ScopeKind)[:3]]


class Quota(SnapshotRow):
    """A spend cap per window, by the tenant's calendar and clock; a hold keeps the window it was
    admitted in. `scope_id` is an id as text, a model's or a supplier's name, or for sessions the
    tenant's id. In shadow it is counted and told of, and refuses nothing. The limit is
    `raised_pico` until `raised_until`."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="quotas")
    scope_kind = models.CharField(max_length=8, choices=ScopeKind)
    scope_id = models.CharField(max_length=200)
    window = models.CharField(max_length=8, choices=Window.choices())
    limit_pico = models.DecimalField(max_digits=38, decimal_places=0)
    raised_pico = models.DecimalField(max_digits=38, decimal_places=0, null=True, blank=True)
    raised_until = models.DateTimeField(null=True, blank=True)
    shadow = models.BooleanField(default=False)
    # Since when this is the limit; windows that were over by then had another, or none.
    limit_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "scope_kind", "scope_id", "window"], name="quota_unique"
            ),
            models.CheckConstraint(
                condition=models.Q(limit_pico__gte=0), name="quota_not_negative"
            ),
            models.CheckConstraint(
                condition=models.Q(raised_pico=None, raised_until=None)
                | models.Q(raised_pico__gt=models.F("limit_pico"), raised_until__isnull=False),
                name="quota_raise_is_one",
            ),
            models.CheckConstraint(
                condition=models.Q(scope_kind="session", window="session")
                | ~models.Q(scope_kind="session") & ~models.Q(window="session"),
                name="quota_of_session_has_no_window",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope_kind} {self.scope_id} per {self.window}"

    def limit_at(self, now: datetime) -> int:
        """The limit in force, in pico-dollars."""
        if self.raised_until is not None and now < self.raised_until:
            return int(self.raised_pico or 0)
        return int(self.limit_pico)


class RateLimit(SnapshotRow):
    """Requests and tokens per minute, and open requests at once; null means no limit."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.CASCADE, related_name="rate_limits"
    )
    scope_kind = models.CharField(max_length=8, choices=RATED_SCOPES)
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


class MadeKey(SnapshotRow):
    """An API key that another key made, once for each key in its maker's line: what it uses counts
    at their limits too."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="+")
    api_key_id = models.BigIntegerField()
    maker_id = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["api_key_id", "maker_id"], name="made_key_unique"),
        ]

    def __str__(self) -> str:
        return f"key {self.api_key_id} by {self.maker_id}"
