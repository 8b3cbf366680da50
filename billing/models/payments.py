"""Credit that is bought: top-ups, the automatic ones among them, and what the processor told us."""

import uuid

from django.db import models
from django.db.models import Q

from billing.models.tenants import CreditGrant, Tenant


class TopUp(models.Model):
    """One purchase of credit. `net_cents` becomes credit once the processor says it is paid."""

    class State(models.TextChoices):
        STARTED = "started"
        PAID = "paid"
        FAILED = "failed"
        # Paid, but not the sum that was asked for: a person decides.
        REVIEW = "review"

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="topups")
    net_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField(default=0)
    is_automatic = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State, default=State.STARTED)
    # The processor's own name of the payment, once it has one.
    payment_reference = models.CharField(max_length=120, blank=True, db_index=True)
    # Gross, cumulative, as the processor tells it.
    refunded_cents = models.BigIntegerField(default=0)
    failure = models.CharField(max_length=200, blank=True)
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, null=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(net_cents__gt=0, tax_cents__gte=0), name="topup_positive"
            ),
            models.CheckConstraint(
                condition=~Q(state="paid") | Q(grant__isnull=False), name="topup_paid_is_granted"
            ),
        ]
        indexes = [models.Index(fields=["tenant", "-created_at"])]

    def __str__(self) -> str:
        return f"{self.total_cents} cents of {self.tenant_id}, {self.state}"

    @property
    def total_cents(self) -> int:
        return self.net_cents + self.tax_cents


class Receipt(models.Model):
    """What a tenant was given for its payment. Immutable."""

    topup = models.OneToOneField(TopUp, on_delete=models.PROTECT, related_name="receipt")
    number = models.CharField(max_length=20, unique=True)
    parties = models.JSONField()
    # Null where the tax is not the net sum times one rate.
    tax_ppm = models.PositiveIntegerField(null=True)
    payment_reference = models.CharField(max_length=120)
    net_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()
    issued_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.number

    @property
    def total_cents(self) -> int:
        return self.net_cents + self.tax_cents


class Refund(models.Model):
    """What a tenant was given when money of a purchase went back to it. Immutable.

    Parties and tax rate are those of the purchase, and `receipt` is its receipt's number."""

    topup = models.ForeignKey(TopUp, on_delete=models.PROTECT, related_name="refunds")
    number = models.CharField(max_length=20, unique=True)
    receipt = models.CharField(max_length=20, blank=True)
    parties = models.JSONField()
    # Null where the tax is not the net sum times one rate.
    tax_ppm = models.PositiveIntegerField(null=True)
    payment_reference = models.CharField(max_length=120)
    net_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()
    issued_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(net_cents__gte=0, tax_cents__gte=0), name="refund_not_negative"
            )
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def total_cents(self) -> int:
        return self.net_cents + self.tax_cents


class Recharge(models.Model):
    """Buys credit by itself when little is left, up to a sum a month, with a saved card."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, related_name="recharge")
    is_on = models.BooleanField(default=False)
    below_cents = models.PositiveBigIntegerField()
    amount_cents = models.PositiveBigIntegerField()
    monthly_max_cents = models.PositiveBigIntegerField()
    # The processor's names of the payer and its saved card.
    payer_reference = models.CharField(max_length=120, blank=True)
    card_reference = models.CharField(max_length=120, blank=True)
    failures = models.PositiveSmallIntegerField(default=0)
    failure = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_cents__gt=0)
                & Q(monthly_max_cents__gte=models.F("amount_cents")),
                name="recharge_within_month",
            )
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id}: {self.amount_cents} below {self.below_cents}"


class ProcessorEvent(models.Model):
    """A message of the payment processor that was acted on: its id acts once, for good."""

    event_id = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=80)
    body_hash = models.BinaryField(max_length=32)
    outcome = models.CharField(max_length=200)
    received_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.kind} {self.event_id}"
