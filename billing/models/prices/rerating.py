"""Re-rating: what a corrected price makes of a period, and what each tenant got back for it."""

from django.db import models
from django.db.models import F, Q

from billing.kinds import ServiceTier
from billing.models.tenants import CreditGrant, Tenant


class ReRating(models.Model):
    """One correction of one price over one period. Immutable: the next one replaces it.

    `rates` are those of the list price; versions of price lists are corrected by their own change.
    """

    sku = models.CharField(max_length=200)
    service_tier = models.SmallIntegerField(
        choices=ServiceTier.choices(), default=ServiceTier.DEFAULT.value
    )
    context_over = models.IntegerField(default=0)
    from_minute = models.SmallIntegerField(default=0)
    to_minute = models.SmallIntegerField(default=0)
    since = models.DateTimeField()
    until = models.DateTimeField()
    rates = models.JSONField()
    # Whether tenants that had paid too little were charged the rest.
    charges_more = models.BooleanField(default=False)
    replaces = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, related_name="replaced_by"
    )
    reason = models.CharField(max_length=200)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name = "price correction"
        verbose_name_plural = "price corrections"
        constraints = [
            models.CheckConstraint(
                condition=Q(since__lt=F("until")), name="rerating_period_forward"
            ),
        ]

    def __str__(self) -> str:
        return f"re-rating {self.pk} of {self.sku}"


class Adjustment(models.Model):
    """A re-rating's credit note to one tenant, or what it was charged more. Immutable."""

    re_rating = models.ForeignKey(ReRating, on_delete=models.PROTECT, related_name="adjustments")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="adjustments")
    events = models.PositiveIntegerField()
    charged_pico = models.DecimalField(max_digits=38, decimal_places=0)
    corrected_pico = models.DecimalField(max_digits=38, decimal_places=0)
    # Absent where nothing was off.
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["re_rating", "tenant"], name="adjustment_once_per_tenant"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.re_rating} for {self.tenant_id}"
