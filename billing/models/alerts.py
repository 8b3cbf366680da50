"""Budgets that are filling up: what was crossed when, whom to tell, and whether they were told.

Credit that runs low, and bought credit that went back, go the same way.
"""

from django.db import models


class BudgetAlert(models.Model):
    """A budget has reached a share of its limit in one window; told once. Outlives its budget."""

    tenant = models.ForeignKey("billing.Tenant", on_delete=models.CASCADE, related_name="+")
    quota_id = models.BigIntegerField()
    bucket = models.CharField(max_length=24)
    percent = models.PositiveSmallIntegerField()
    subject = models.CharField(max_length=240)
    spent_pico = models.DecimalField(max_digits=38, decimal_places=0)
    limit_pico = models.DecimalField(max_digits=38, decimal_places=0)
    occurred_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["quota_id", "bucket", "percent"], name="budget_alert_once"
            ),
        ]
        indexes = [models.Index(fields=["tenant", "-occurred_at"])]

    def __str__(self) -> str:
        return f"{self.subject}: {self.percent} %"


class AlertChannel(models.Model):
    """Where a tenant is told of its budgets and credit: a mail address or a webhook's URL."""

    class Kind(models.TextChoices):
        MAIL = "mail"
        WEBHOOK = "webhook"

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.CASCADE, related_name="alert_channels"
    )
    kind = models.CharField(max_length=8, choices=Kind)
    target = models.CharField(max_length=300)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    # Somebody sends to it, until then at the latest.
    busy_until = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "kind", "target"], name="alert_channel_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


def _one_of(*names: str) -> models.Q:
    """Exactly one of these is set."""
    condition = models.Q()
    for name in names:
        others = {other: None for other in names if other != name}
        condition |= models.Q(**others) & ~models.Q(**{name: None})
    return condition


class AlertDelivery(models.Model):
    """One alert, of a budget, of credit or of a refund, on its way to one channel; tried again a
    bounded number of times."""

    alert = models.ForeignKey(
        BudgetAlert, on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    credit_alert = models.ForeignKey(
        "billing.CreditAlert", on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    refund = models.ForeignKey(
        "billing.Refund", on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    adjustment = models.ForeignKey(
        "billing.AdjustmentNote", on_delete=models.CASCADE, null=True, related_name="deliveries"
    )
    channel = models.ForeignKey(AlertChannel, on_delete=models.CASCADE, related_name="deliveries")
    tries = models.PositiveSmallIntegerField(default=0)
    # Null once it is delivered or given up.
    due_at = models.DateTimeField(null=True, db_index=True)
    delivered_at = models.DateTimeField(null=True)
    failure = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["alert", "channel"], name="alert_delivery_once"),
            models.UniqueConstraint(
                fields=["credit_alert", "channel"], name="credit_alert_delivery_once"
            ),
            models.UniqueConstraint(fields=["refund", "channel"], name="refund_delivery_once"),
            models.UniqueConstraint(
                fields=["adjustment", "channel"], name="adjustment_delivery_once"
            ),
            models.CheckConstraint(
                condition=_one_of("alert", "credit_alert", "refund", "adjustment"),
                name="alert_delivery_of_one",
            ),
        ]
        verbose_name_plural = "alert deliveries"

    def __str__(self) -> str:
        return (
            f"{self.alert or self.credit_alert or self.refund or self.adjustment} to {self.channel}"
        )
