"""Invoices and what follows them: frozen documents in whole cents over exact usage in pico-dollars.

A draft may be made again as often as one likes. Finalised, neither it nor its lines change any
more (trigger): it is voided, corrected by credit notes, or paid.
"""

from datetime import date, timedelta
from zoneinfo import ZoneInfo

from django.core.validators import MaxValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q

from billing.models.tenants import CreditGrant, Tenant
from billing.rates import PPM


class BillingProfile(models.Model):
    """Who an invoice is addressed to, and how it is taxed. No profile, no invoice."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, related_name="billing_profile")
    legal_name = models.CharField(max_length=200)
    address = models.TextField(max_length=500)
    country = models.CharField(
        max_length=2, validators=[RegexValidator(r"^[A-Z]{2}$", "two capital letters (ISO 3166)")]
    )
    email = models.EmailField(blank=True)
    tax_id = models.CharField(max_length=40, blank=True)
    tax_name = models.CharField(max_length=40, blank=True, help_text="For example VAT or GST.")
    # Parts per million: 8.875 % is 88,750.
    tax_ppm = models.PositiveIntegerField(default=0, validators=[MaxValueValidator(PPM)])
    is_reverse_charge = models.BooleanField(
        "reverse charge",
        default=False,
        help_text="The buyer owes the tax: needs its VAT id, and is printed.",
    )
    tax_note = models.CharField(
        max_length=200,
        blank=True,
        help_text="Printed under the tax: why there is none, say.",
    )
    reference = models.CharField(
        max_length=80, blank=True, help_text="The buyer's order number or cost centre, printed."
    )
    terms_days = models.PositiveSmallIntegerField(
        default=14, validators=[MaxValueValidator(365)], help_text="Days until payment is due."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(tax_ppm__lte=PPM), name="tax_at_most_all"),
            models.CheckConstraint(condition=Q(tax_ppm=0) | ~Q(tax_name=""), name="tax_has_a_name"),
            models.CheckConstraint(
                condition=Q(is_reverse_charge=False) | Q(tax_ppm=0) & ~Q(tax_id=""),
                name="reverse_charge_has_a_vat_id",
            ),
        ]

    def __str__(self) -> str:
        return self.legal_name


class NumberSeries(models.Model):
    """The last number given out in a year. Without gaps: taken under its row's lock."""

    class Document(models.TextChoices):
        INVOICE = "INV"
        CREDIT_NOTE = "CN"
        RECEIPT = "RCP"
        REFUND = "RFN"
        ADJUSTMENT = "ADJ"

    document = models.CharField(max_length=4, choices=Document)
    year = models.PositiveSmallIntegerField()
    last = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["document", "year"], name="number_series_unique")
        ]

    def __str__(self) -> str:
        return f"{self.document}-{self.year}"


class Invoice(models.Model):
    """What one tenant used in one period, what its credit covers, and what is due.

    It covers every charge that occurred before `period_end`, was posted up to `upto_transfer` and
    is on no other invoice (`CoveredSpan`): so a charge that arrives late is on the next invoice,
    and none is on two, whatever periods are called.
    """

    class State(models.TextChoices):
        DRAFT = "draft"
        FINALISED = "finalised"
        VOID = "void"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="invoices")
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT)
    number = models.CharField(max_length=20, unique=True, null=True)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    # The calendar that the period is a month of.
    time_zone = models.CharField(max_length=64, default="UTC")
    upto_transfer = models.BigIntegerField()
    # A void invoice's successor covers the same charges.
    replaces = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, related_name="replaced_by"
    )
    usage_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    # What adjustment notes charged, less what they gave back.
    adjusted_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    # Negative where more was given back than used: carried over as credit.
    covered_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    subtotal_cents = models.BigIntegerField(default=0)
    covered_cents = models.BigIntegerField(default=0)
    # What of the covered sum was covered by credit that has borne no tax: it is taxed here.
    untaxed_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    untaxed_cents = models.BigIntegerField(default=0)
    tax_cents = models.BigIntegerField(default=0)
    tax_ppm = models.PositiveIntegerField(default=0)
    # Buyer and seller as they were when it was finalised.
    parties = models.JSONField(default=dict)
    # Team, requests, exact cost as text: who used it, dearest first. Null before this was kept.
    teams = models.JSONField(null=True)
    issued_at = models.DateTimeField(null=True)
    due_on = models.DateField(null=True)
    # Tax and rounding; absent where there is neither.
    transfer = models.OneToOneField(
        "billing.Transfer", on_delete=models.PROTECT, null=True, related_name="invoice"
    )
    void_reason = models.CharField(max_length=200, blank=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "period_start"],
                condition=~Q(state="void"),
                name="invoice_one_per_period",
            ),
            models.CheckConstraint(
                condition=Q(period_start__lt=F("period_end")), name="invoice_period_forward"
            ),
            models.CheckConstraint(
                condition=Q(state="draft") | Q(number__isnull=False, issued_at__isnull=False),
                name="invoice_numbered",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-period_start"]),
            models.Index(fields=["state", "-id"], name="invoice_state"),
        ]

    def __str__(self) -> str:
        return self.number or f"draft for {self.tenant_id}"

    @property
    def first_day(self) -> date:
        return self.period_start.astimezone(ZoneInfo(self.time_zone)).date()

    @property
    def last_day(self) -> date:
        last = self.period_end - timedelta(microseconds=1)
        return last.astimezone(ZoneInfo(self.time_zone)).date()

    @property
    def net_cents(self) -> int:
        """What is due before tax."""
        return self.subtotal_cents - self.covered_cents

    @property
    def taxable_cents(self) -> int:
        return self.net_cents + self.untaxed_cents

    @property
    def charged_pico(self) -> int:
        return int(self.usage_pico) + int(self.adjusted_pico)

    @property
    def total_cents(self) -> int:
        return self.net_cents + self.tax_cents


class InvoiceLine(models.Model):
    """One token class at one price version, exactly; or an adjustment note. Cents are rounded once
    per sku, half away from zero: those of its lines add up to it."""

    class Kind(models.TextChoices):
        USAGE = "usage"
        LATE = "late", "from an earlier period"
        PARTIAL = "partial", "charged in part"
        ADJUSTMENT = "adjustment"

    invoice = models.ForeignKey(Invoice, on_delete=models.CASCADE, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=Kind)
    model = models.CharField(max_length=200)
    sku = models.CharField(max_length=200)
    price_version = models.ForeignKey("billing.PriceVersion", on_delete=models.PROTECT, null=True)
    unit = models.CharField(max_length=200)
    quantity = models.BigIntegerField()
    # Null where the line is not quantity × rate.
    rate_pico = models.BigIntegerField(null=True)
    exact_pico = models.DecimalField(max_digits=38, decimal_places=0)
    amount_cents = models.BigIntegerField()
    service_start = models.DateTimeField()
    service_end = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["invoice", "position"], name="invoice_line_position")
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.unit}"


class CreditNote(models.Model):
    """Takes back part of a finalised invoice, its tax in proportion. Immutable."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="credit_notes")
    number = models.CharField(max_length=20, unique=True)
    reason = models.CharField(max_length=200)
    net_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()
    # What of it met what was open. The rest was paid or covered by then, and is credit.
    settled_net_cents = models.BigIntegerField(default=0)
    settled_tax_cents = models.BigIntegerField(default=0)
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT)
    # Tax that was paid and is credit now.
    tax_grant = models.OneToOneField(
        CreditGrant, on_delete=models.PROTECT, null=True, related_name="+"
    )
    transfer = models.OneToOneField("billing.Transfer", on_delete=models.PROTECT, null=True)
    created_by = models.CharField(max_length=150)
    issued_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(net_cents__gt=0, tax_cents__gte=0), name="credit_note_positive"
            )
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def total_cents(self) -> int:
        return self.net_cents + self.tax_cents


class Payment(models.Model):
    """Money received for an invoice. `reference` is the bank's or processor's own: once only."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="payments")
    amount_cents = models.BigIntegerField()
    reference = models.CharField(max_length=120, unique=True)
    received_on = models.DateField()
    # The part that is credit again, and the part that pays tax.
    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, null=True)
    transfer = models.OneToOneField("billing.Transfer", on_delete=models.PROTECT, null=True)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount_cents__gt=0), name="payment_positive")
        ]

    def __str__(self) -> str:
        return self.reference
