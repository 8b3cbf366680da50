"""Which charges stand on which invoice, as rectangles: occurred in a span, posted in a range."""

from django.db import models
from django.db.models import F, Q

from billing.models.invoicing.invoices import Invoice
from billing.models.tenants import Tenant


class CoveredSpan(models.Model):
    """Charges that occurred in [from, until) and whose transfer is in (after, upto].

    A charge is a point: it occurred once and was posted once. Spans of live invoices (drafts and
    issued ones) of a tenant never overlap (exclusion constraint in the migration), so no charge is
    on two. A void invoice keeps its spans, no longer live, to say what it had covered.
    """

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="spans")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    occurred_from = models.DateTimeField()
    occurred_until = models.DateTimeField()
    posted_after = models.BigIntegerField()
    posted_upto = models.BigIntegerField()
    is_live = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    occurred_from__lt=F("occurred_until"), posted_after__lt=F("posted_upto")
                ),
                name="covered_span_not_empty",
            )
        ]

    def __str__(self) -> str:
        return (
            f"{self.occurred_from:%Y-%m-%d} to {self.occurred_until:%Y-%m-%d} of {self.tenant_id}"
        )
