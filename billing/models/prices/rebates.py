"""Volume rebates: what a plan gives back by a month's spending, and what was given."""

from django.db import models

from billing.models.prices.versions import PriceList
from billing.models.tenants import CreditGrant, Tenant


class RebateScale(models.Model):
    """A plan's tiers, in force from a month on until another one's month. Immutable.

    `tiers`: [[up to pico-dollars or null, parts per million, bonus in pico-dollars], …].
    """

    class Mode(models.TextChoices):
        GRADUATED = "graduated", "each part at its own tier"
        VOLUME = "volume", "all of it at the tier reached"

    plan = models.ForeignKey(PriceList, on_delete=models.PROTECT, related_name="rebate_scales")
    from_month = models.DateField()
    mode = models.CharField(max_length=10, choices=Mode)
    tiers = models.JSONField()
    recorded_by = models.CharField(max_length=150)
    recorded_at = models.DateTimeField()

    class Meta:
        verbose_name = "volume rebate"
        verbose_name_plural = "volume rebates"
        constraints = [
            models.UniqueConstraint(
                fields=["plan", "from_month"], name="rebate_scale_one_per_month"
            ),
            models.CheckConstraint(
                condition=models.Q(from_month__day=1), name="rebate_scale_from_a_first"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.plan} from {self.from_month:%Y-%m}"


class VolumeRebate(models.Model):
    """One posting for a tenant's month: what is due by now, less what was posted before."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="rebates")
    month = models.DateField()
    scale = models.ForeignKey(RebateScale, on_delete=models.PROTECT)
    spent_pico = models.DecimalField(max_digits=38, decimal_places=0)
    due_pico = models.DecimalField(max_digits=38, decimal_places=0)
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT)

    class Meta:
        verbose_name = "posted rebate"
        verbose_name_plural = "posted rebates"
        indexes = [
            models.Index(fields=["tenant", "month"]),
            models.Index(fields=["month"], name="rebate_month"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.month:%Y-%m}"
