"""What a provider says we owe: every row of its bill, to be held against the ledger."""

from django.db import models
from django.db.models import F, Q


class ProviderBill(models.Model):
    """A bill or usage export of one provider over some days (UTC, both included). What it says is
    immutable; what became of its rows is decided before it is accepted, which posts the
    difference. `stated_pico` is the total that the document itself names, where somebody typed it.
    """

    supplier = models.CharField(max_length=80)
    first_day = models.DateField()
    last_day = models.DateField()
    file_name = models.CharField(max_length=200)
    file_format = models.CharField(max_length=80)
    file_hash = models.BinaryField(max_length=32)
    stated_pico = models.DecimalField(max_digits=38, decimal_places=0, null=True)
    uploaded_by = models.CharField(max_length=150)
    uploaded_at = models.DateTimeField()
    accepted_by = models.CharField(max_length=150, blank=True)
    accepted_at = models.DateTimeField(null=True)
    transfer = models.OneToOneField(
        "billing.Transfer", on_delete=models.PROTECT, null=True, related_name="provider_bill"
    )

    class Meta:
        verbose_name = "provider's bill"
        verbose_name_plural = "providers' bills"
        constraints = [
            models.UniqueConstraint(fields=["supplier", "file_hash"], name="provider_bill_once"),
            models.CheckConstraint(
                condition=Q(first_day__lte=F("last_day")), name="provider_bill_forward"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.supplier}, {self.first_day} to {self.last_day}"


class ProviderBillRow(models.Model):
    """One row of the file by its line, and what became of it. `amount` is as the row says it, in
    its own currency; `cost_pico` is that in dollars, null where that is not known."""

    class State(models.TextChoices):
        USED = "used", "used"
        OPEN = "open", "to be decided"
        CARRIED = "carried", "owed, of no day or model"
        LEFT_OUT = "left_out", "left out"

    bill = models.ForeignKey(ProviderBill, on_delete=models.CASCADE, related_name="rows")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    why = models.CharField(max_length=200, blank=True)
    day = models.DateField(null=True)
    model = models.CharField(max_length=200, blank=True)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    amount = models.DecimalField(max_digits=40, decimal_places=20, null=True)
    currency = models.CharField(max_length=10, default="USD")
    cost_pico = models.DecimalField(max_digits=38, decimal_places=0, null=True)
    note = models.CharField(max_length=200, blank=True)
    decided_by = models.CharField(max_length=150, blank=True)
    decided_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["bill", "number"], name="provider_bill_row_once"),
            models.CheckConstraint(
                condition=~Q(state="used") | Q(day__isnull=False), name="provider_bill_used_has_day"
            ),
            models.CheckConstraint(
                condition=~Q(state="carried") | Q(cost_pico__isnull=False),
                name="provider_bill_carried_has_cost",
            ),
        ]

    def __str__(self) -> str:
        return f"line {self.number}"

    @property
    def asked(self) -> str:
        """The sum as the row says it."""
        if self.amount is None:
            return "unknown"
        digits = f"{self.amount:f}"
        return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {self.currency}"


class BillRate(models.Model):
    """What one unit of a bill's currency was worth on a day, who says so, and from where."""

    bill = models.ForeignKey(ProviderBill, on_delete=models.CASCADE, related_name="rates")
    currency = models.CharField(max_length=10)
    pico_per_unit = models.BigIntegerField()
    day = models.DateField()
    source = models.CharField(max_length=120)
    stated_by = models.CharField(max_length=150)
    stated_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["bill", "currency"], name="bill_rate_once"),
            models.CheckConstraint(condition=Q(pico_per_unit__gt=0), name="bill_rate_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.currency} on {self.day}"
