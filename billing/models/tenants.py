"""The paying party. Everything in billing is keyed by a tenant; nothing here knows vendors."""

from django.db import models
from django.utils import timezone

from billing.kinds import HoldMode
from billing.registers import SHARDS
from billing.snapshot_rows import SnapshotRow


class Tenant(SnapshotRow):
    """One paying party. Its registers, holds and usage stream live in one Redis shard."""

    not_in_snapshot = frozenset({"status", "credit_limit_pico", "credit_version"})

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    slug = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=120)
    status = models.CharField(max_length=16, choices=Status, default=Status.ACTIVE)
    time_zone = models.CharField(max_length=64, default="UTC")
    # How far below zero the balance may go; zero for prepaid tenants.
    credit_limit_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    hold_mode = models.CharField(
        max_length=8, choices=HoldMode.choices(), default=HoldMode.STRICT.value
    )
    # Where holds are what is expected: by how much spending may pass each limit at most.
    overdraft_pico = models.DecimalField(max_digits=38, decimal_places=0, default=0)
    # Raised with every change of credit, so that Redis can refuse an older figure.
    credit_version = models.BigIntegerField(default=0)
    max_output_tokens = models.PositiveIntegerField(
        default=0,
        help_text="The most output tokens of one answer, told to callers whose limit it lowers. "
        "0: the model's own limit.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

    @property
    def shard(self) -> int:
        return int(self.pk) % SHARDS


class CreditGrant(models.Model):
    """Credit given, bought or taken back. Immutable; its transfer moved the money.

    Which grant pays for what: `billing.credit.attribution`.
    """

    class Kind(models.TextChoices):
        GIVEN = "given"
        PAID = "paid"
        ROUNDING = "rounding"  # what an invoice's rounding to cents left over, either way
        CREDIT_NOTE = "credit_note"
        TAX = "tax"  # tax that was paid and is credited
        ADJUSTMENT = "adjustment"  # outside usage: back to the tenant, or negative
        EXPIRY = "expiry"  # takes back what `expires` had left, so negative

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="grants")
    amount_pico = models.DecimalField(max_digits=38, decimal_places=0)
    kind = models.CharField(max_length=12, choices=Kind, default=Kind.GIVEN)
    expires_at = models.DateTimeField("ends", null=True, blank=True)
    expires = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="expiries"
    )
    reason = models.CharField(max_length=200)
    transfer = models.OneToOneField("billing.Transfer", on_delete=models.PROTECT)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="grant_created"),
            models.Index(
                fields=["expires_at"],
                condition=models.Q(expires_at__isnull=False),
                name="credit_grant_ends",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(amount_pico=0), name="credit_grant_not_zero"
            ),
            models.CheckConstraint(
                condition=~models.Q(kind="expiry")
                | models.Q(expires__isnull=False, amount_pico__lt=0),
                name="credit_grant_expiry_takes_back",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_pico} to {self.tenant_id}: {self.reason}"


class GrantUse(models.Model):
    """What credit that has ended had paid for, written down once nothing of before its end was open
    any more. What was left of it is a grant of its own, which takes it back."""

    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="uses")
    amount_pico = models.DecimalField(max_digits=38, decimal_places=0)
    # Usage admitted until then.
    until = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount_pico__gt=0), name="grant_use_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_pico} of grant {self.grant_id}"
