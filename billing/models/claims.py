"""What sellers counted beyond the bounds of what was asked of them, for a person to look at."""

from django.db import models
from django.db.models import Q


class Claim(models.Model):
    """One attempt's counts as its seller stated them. The tenant paid the estimate; the seller is
    owed nothing until somebody has decided, and then `owed_pico`."""

    request_id = models.UUIDField()
    attempt = models.SmallIntegerField()
    tenant = models.ForeignKey("billing.Tenant", on_delete=models.PROTECT, related_name="+")
    supplier = models.CharField(max_length=80)
    sku = models.CharField(max_length=200)
    reason = models.CharField(max_length=200)
    claimed_input_tokens = models.BigIntegerField()
    claimed_output_tokens = models.BigIntegerField()
    billed_input_tokens = models.BigIntegerField()
    billed_output_tokens = models.BigIntegerField()
    occurred_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, blank=True)
    decision = models.CharField(max_length=200, blank=True)
    owed_pico = models.BigIntegerField(default=0)
    transfer = models.OneToOneField(
        "billing.Transfer", on_delete=models.PROTECT, null=True, related_name="claim"
    )

    class Meta:
        verbose_name = "seller's claim"
        verbose_name_plural = "sellers' claims"
        constraints = [
            models.UniqueConstraint(fields=["request_id", "attempt"], name="claim_once"),
        ]
        indexes = [
            models.Index(fields=["supplier", "-id"], name="claim_supplier"),
            models.Index(fields=["decided_at"], name="claim_decided"),
            models.Index(
                fields=["occurred_at"], condition=Q(decided_at=None), name="claim_undecided"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.supplier}: {self.reason}"
