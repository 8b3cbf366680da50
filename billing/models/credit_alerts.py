"""Credit that runs low: below which sum a tenant wants to be told, and when it was."""

from django.db import models
from django.db.models import Q

from billing.models.tenants import Tenant


class CreditThreshold(models.Model):
    """Below this a tenant is told, once. `told_version` is that of the credit it was told at: until
    the credit has changed and is above the sum again, nothing more is told."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, related_name="credit_threshold")
    below_pico = models.DecimalField(max_digits=38, decimal_places=0)
    told_version = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(below_pico__gt=0), name="credit_threshold_positive")
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} below {self.below_pico}"


class CreditAlert(models.Model):
    """The credit of a tenant fell below its threshold."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    below_pico = models.DecimalField(max_digits=38, decimal_places=0)
    left_pico = models.DecimalField(max_digits=38, decimal_places=0)
    occurred_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["tenant", "-occurred_at"])]

    def __str__(self) -> str:
        return f"credit of {self.tenant_id} below {self.below_pico}"
