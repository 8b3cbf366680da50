"""What a provider says we owe: its bill by day and model, to be held against the ledger."""

from django.db import models
from django.db.models import F, Q


class ProviderBill(models.Model):
    """A bill or usage export of one provider over some days (UTC, both included). Immutable but
    for its acceptance, which posts the difference."""

    supplier = models.CharField(max_length=80)
    first_day = models.DateField()
    last_day = models.DateField()
    file_name = models.CharField(max_length=200)
    file_format = models.CharField(max_length=80)
    file_hash = models.BinaryField(max_length=32)
    uploaded_by = models.CharField(max_length=150)
    uploaded_at = models.DateTimeField()
    accepted_by = models.CharField(max_length=150, blank=True)
    accepted_at = models.DateTimeField(null=True)
    transfer = models.OneToOneField(
        "billing.Transfer", on_delete=models.PROTECT, null=True, related_name="provider_bill"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["supplier", "file_hash"], name="provider_bill_once"),
            models.CheckConstraint(
                condition=Q(first_day__lte=F("last_day")), name="provider_bill_forward"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.supplier}, {self.first_day} to {self.last_day}"


class ProviderBillLine(models.Model):
    """One day and model. `cost_pico` is null where the file names no sums."""

    bill = models.ForeignKey(ProviderBill, on_delete=models.CASCADE, related_name="lines")
    day = models.DateField()
    model = models.CharField(max_length=200)
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cost_pico = models.DecimalField(max_digits=38, decimal_places=0, null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["bill", "day", "model"], name="provider_bill_line_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} on {self.day}"
