"""Money that was sent to a seller for what buyers paid."""

from django.db import models
from django.db.models import Q


class Payout(models.Model):
    """One bank transfer to a supplier. `reference` is the bank's own: once only. Immutable."""

    supplier = models.CharField(max_length=80)
    amount_cents = models.BigIntegerField()
    reference = models.CharField(max_length=90, unique=True)
    paid_on = models.DateField()
    transfer = models.OneToOneField("billing.Transfer", on_delete=models.PROTECT)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount_cents__gt=0), name="payout_positive")
        ]
        indexes = [
            models.Index(fields=["supplier", "-paid_on"]),
            models.Index(fields=["paid_on"], name="payout_day"),
        ]

    def __str__(self) -> str:
        return self.reference
