"""Money outside usage: a correction, a rebate, a service credit, each with a number of its own."""

from django.db import models

from billing.models.tenants import CreditGrant, Tenant


class AdjustmentNote(models.Model):
    """What a tenant was given back, or charged more, and why. Immutable.

    Its grant moved the money at once. It is a line of the next invoice, which taxes it: a charge
    that occurred when it was issued, and was posted by its grant's transfer (`CoveredSpan`).
    """

    class Cause(models.TextChoices):
        CORRECTION = "correction", "price correction"
        REBATE = "rebate", "volume rebate"
        SERVICE = "service", "service credit"  # a promised level was missed
        OTHER = "other", "adjustment"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="adjustment_notes")
    number = models.CharField(max_length=20, unique=True)
    cause = models.CharField(max_length=12, choices=Cause)
    reason = models.CharField(max_length=200)
    grant = models.OneToOneField(
        CreditGrant, on_delete=models.PROTECT, related_name="adjustment_note"
    )
    # What of it is for requests of which UTC month: {"2026-03": "-1200"}, in pico-dollars given.
    months = models.JSONField(default=dict)
    parties = models.JSONField(default=dict)
    issued_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "-issued_at"]),
            models.Index(fields=["cause", "-id"], name="adjustment_cause"),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def charged_pico(self) -> int:
        """Above zero where the tenant was charged more."""
        return -int(self.grant.amount_pico)

    @property
    def title(self) -> str:
        return self.Cause(self.cause).label.capitalize()
