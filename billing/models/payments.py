"""Credit that is bought: top-ups, the automatic ones among them, and what the processor told us."""

import uuid

from django.db import models
from django.db.models import Q

from billing.models.tenants import CreditGrant, Tenant


class TopUp(models.Model):
    """One purchase of credit. `net_cents` becomes credit once the processor says it is paid.

    What went back to the payer, gross: `refunded_cents` and `disputed_cents` as the processor tells
    it, cumulative; `returned_cents` is what of both has been taken back of the credit so far.
    """

    class State(models.TextChoices):
        STARTED = "started"
        PAID = "paid"
        FAILED = "failed"
        # Paid, but not the sum that was asked for, or nobody could say for weeks: a person decides.
        REVIEW = "review"

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="topups")
    net_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField(default=0)
    # There was no billing profile: usage that this credit covers is taxed on its invoice.
    is_taxed_later = models.BooleanField(default=False)
    is_automatic = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State, default=State.STARTED)
    # The processor's own name of the payment, once it has one.
    payment_reference = models.CharField(max_length=120, blank=True, db_index=True)
    refunded_cents = models.BigIntegerField(default=0)
    disputed_cents = models.BigIntegerField(default=0)
    returned_cents = models.BigIntegerField(default=0)
    # An automatic purchase is charged to this card, however often it is asked for.
    payer_reference = models.CharField(max_length=120, blank=True)
    card_reference = models.CharField(max_length=120, blank=True)
    # When the processor is asked next what became of it; null where there is nothing to ask.
    due_at = models.DateTimeField(null=True, db_index=True)
    tries = models.PositiveSmallIntegerField(default=0)
    failure = models.CharField(max_length=200, blank=True)
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, null=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "purchase of credit"
        verbose_name_plural = "bought credit"
        constraints = [
            models.CheckConstraint(
                condition=Q(net_cents__gt=0, tax_cents__gte=0), name="topup_positive"
            ),
            models.CheckConstraint(
                condition=~Q(state="paid") | Q(grant__isnull=False), name="topup_paid_is_granted"
            ),
            models.UniqueConstraint(
                fields=["tenant"],
                condition=Q(is_automatic=True, state="started", due_at__isnull=False),
                name="topup_one_open_attempt",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-created_at"]),
            models.Index(fields=["state", "-id"], name="topup_state"),
            models.Index(fields=["is_automatic", "-id"], name="topup_automatic"),
        ]

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
    """What a tenant was given when money of a purchase went back to it, or came again. Immutable.

    Parties and tax rate are those of the purchase, and `receipt` is its receipt's number. A payment
    that is disputed goes back; where the dispute was won it comes again, with negative sums."""

    class Cause(models.TextChoices):
        REFUND = "refund", "refunded"
        DISPUTE = "dispute", "disputed"
        DISPUTE_WON = "dispute_won", "dispute won"

    cause = models.CharField(max_length=12, choices=Cause, default=Cause.REFUND)
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
                condition=Q(net_cents__gte=0, tax_cents__gte=0) & ~Q(cause="dispute_won")
                | Q(net_cents__lte=0, tax_cents__lte=0, cause="dispute_won"),
                name="refund_sign_by_cause",
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


class Dispute(models.Model):
    """A payment that its payer disputes at the bank. `stages` are those that the processor told of,
    in whatever order: what they come to is the same in each."""

    class Stage(models.TextChoices):
        INQUIRY = "inquiry"  # the bank asks; no money has moved
        OPENED = "opened"
        WITHDRAWN = "withdrawn"
        REINSTATED = "reinstated"
        WON = "won"
        LOST = "lost"

    dispute_id = models.CharField(max_length=120, unique=True)
    topup = models.ForeignKey(TopUp, on_delete=models.PROTECT, related_name="disputes")
    amount_cents = models.PositiveBigIntegerField()
    stages = models.JSONField(default=list)
    opened_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.dispute_id}: {self.amount_cents} cents, {', '.join(self.stages)}"

    @property
    def is_taken(self) -> bool:
        """Whether the money is with the payer, as far as we were told."""
        stage, told = self.Stage, set(self.stages)
        is_gone = bool(told & {stage.OPENED, stage.WITHDRAWN, stage.LOST})
        return is_gone and not told & {stage.WON, stage.REINSTATED}


class ProcessorEvent(models.Model):
    """A message of the payment processor: its id acts once, for good.

    A message about a payment that is not known yet waits with `fact`, what it says, and is tried
    again when the payment comes and every now and then, for a bounded time.
    """

    class State(models.TextChoices):
        DONE = "done"
        WAITING = "waiting"
        GIVEN_UP = "given_up"  # waited, and no payment of ours ever matched it
        REVIEW = "review"  # a person has to look at it

    event_id = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=80)
    body_hash = models.BinaryField(max_length=32)
    state = models.CharField(max_length=10, choices=State, default=State.DONE)
    outcome = models.CharField(max_length=200)
    # Of which payment or purchase it speaks, while it waits.
    reference = models.CharField(max_length=120, blank=True, db_index=True)
    fact = models.JSONField(null=True)
    tries = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(null=True, db_index=True)
    received_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["state", "-id"], name="processor_event_state"),
            models.Index(fields=["kind", "-id"], name="processor_event_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.event_id}"
