"""Prices: immutable dated versions per (price list, sku, tier, context, hours), never overlapping.

The list prices stand alone; a price list of its own (a plan's, a tenant's, or what we pay
suppliers) holds versions that were made from them by a rule in percent.
"""

from django.contrib.postgres.fields import DateTimeRangeField
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from billing.kinds import ServiceTier
from billing.rates import percent_text
from billing.snapshot_rows import SnapshotRow


class Sku(SnapshotRow):
    """The billing key of an offer. Billing knows nothing else about what is sold."""

    code = models.CharField(max_length=200, unique=True)

    def __str__(self) -> str:
        return self.code


class PriceList(SnapshotRow):
    """Whose prices differ from the list prices: a plan's, one tenant's, or our suppliers'."""

    class Kind(models.TextChoices):
        PLAN = "plan"  # what the tenants of a plan pay
        TENANT = "tenant"  # what one tenant pays; goes before its plan's
        COST = "cost"  # what we pay suppliers; without a rule, the list price

    kind = models.CharField(max_length=8, choices=Kind, default=Kind.PLAN)
    slug = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=120)
    tenant = models.OneToOneField(
        "billing.Tenant",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="price_list",
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind="tenant", tenant__isnull=False)
                | (~Q(kind="tenant") & Q(tenant=None)),
                name="price_list_of_a_tenant",
            ),
            models.UniqueConstraint(
                fields=["kind"], condition=Q(kind="cost"), name="price_list_one_of_cost"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class PlanAssignment(SnapshotRow):
    """A tenant is put on a plan, or on none (the list prices), from a moment on. Append-only, but
    for one that has not begun: it can be withdrawn. What holds when: `billing.prices.plans`."""

    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, related_name="plan_assignments"
    )
    plan = models.ForeignKey(PriceList, on_delete=models.PROTECT, null=True, related_name="+")
    assigned_at = models.DateTimeField()
    assigned_by = models.CharField(max_length=150)
    recorded_at = models.DateTimeField(default=timezone.now)
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    withdrawn_by = models.CharField(max_length=150, blank=True)

    class Meta:
        verbose_name = "plan of a tenant"
        verbose_name_plural = "plans of tenants"
        indexes = [models.Index(fields=["tenant", "-assigned_at"])]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "assigned_at"],
                condition=Q(withdrawn_at=None),
                name="plan_assignment_one_an_instant",
            ),
            models.CheckConstraint(
                condition=Q(withdrawn_at=None) | Q(withdrawn_at__lt=F("assigned_at")),
                name="plan_assignment_withdrawn_before",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} on {self.plan_id} from {self.assigned_at:%Y-%m-%d}"


class PriceRule(models.Model):
    """A discount or margin: every price of the pattern times (1 + change). Ended, never changed.

    `pattern` is a sku, a provider's skus ("openai/") or everything (""); the most exact one wins.
    """

    price_list = models.ForeignKey(PriceList, on_delete=models.PROTECT, related_name="rules")
    pattern = models.CharField(max_length=200, blank=True)
    # Parts per million: -200,000 is a discount of 20 %, 50,000 a margin of 5 %.
    change_ppm = models.IntegerField()
    note = models.CharField(max_length=300, blank=True)
    recorded_by = models.CharField(max_length=150)
    begins_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "discount or margin"
        verbose_name_plural = "discounts and margins"
        constraints = [
            models.UniqueConstraint(
                fields=["price_list", "pattern"],
                condition=Q(ended_at=None),
                name="price_rule_one_in_force",
            ),
            models.CheckConstraint(
                condition=Q(change_ppm__gte=-1_000_000, change_ppm__lte=10_000_000),
                name="price_rule_within_bounds",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.price_list}: {self.pattern or 'everything'} {percent_text(self.change_ppm)}"


# Text rates, then the rest: a version that charges for none of them must say that it is free.
RATES = (
    "input_pico",
    "cache_read_pico",
    "cache_write_5m_pico",
    "cache_write_1h_pico",
    "output_pico",
    "reasoning_pico",
    "input_audio_pico",
    "input_image_pico",
    "output_audio_pico",
    "request_pico",
)


def _not_negative() -> Q:
    condition = Q(context_over__gte=0)
    for rate in RATES:
        condition &= Q(**{f"{rate}__gte": 0}) | Q(**{f"{rate}__isnull": True})
    return condition


def _free_or_paid() -> Q:
    some_rate = Q()
    for rate in RATES:
        # Without the second half, a null rate would make the whole check unknown, which passes.
        some_rate |= Q(**{f"{rate}__gt": 0, f"{rate}__isnull": False})
    return Q(free=True) | some_rate


class PriceVersion(SnapshotRow):
    """Rates in integer pico-dollars per token over `during`; every text leaf is resolved here.

    `context_over` is a cliff: the version applies to all tokens of a request whose input is
    strictly greater. A null audio or image rate means that the unit is not sold at this sku.
    A version with hours (minutes of the UTC day, half open) goes before the one of all day.
    The migrations add the exclusion constraint, and a trigger that refuses any update but
    closing an open `during`.
    """

    sku = models.ForeignKey(Sku, on_delete=models.PROTECT, related_name="prices")
    service_tier = models.SmallIntegerField(
        choices=ServiceTier.choices(), default=ServiceTier.DEFAULT.value
    )
    context_over = models.IntegerField(default=0)
    from_minute = models.SmallIntegerField(default=0)
    to_minute = models.SmallIntegerField(default=0)
    during = DateTimeRangeField()
    input_pico = models.BigIntegerField()
    cache_read_pico = models.BigIntegerField()
    cache_write_5m_pico = models.BigIntegerField()
    cache_write_1h_pico = models.BigIntegerField()
    output_pico = models.BigIntegerField()
    reasoning_pico = models.BigIntegerField()
    input_audio_pico = models.BigIntegerField(null=True, blank=True)
    input_image_pico = models.BigIntegerField(null=True, blank=True)
    output_audio_pico = models.BigIntegerField(null=True, blank=True)
    request_pico = models.BigIntegerField(default=0)
    # Only a price that was published as free may be zero.
    free = models.BooleanField(default=False)
    # Null is the list price. A version of a price list names what it was made from, and how.
    price_list = models.ForeignKey(
        PriceList, on_delete=models.PROTECT, null=True, blank=True, related_name="versions"
    )
    made_from = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True)
    change_ppm = models.IntegerField(null=True, blank=True)
    source = models.CharField(max_length=120)
    note = models.CharField(max_length=300, blank=True)
    recorded_by = models.CharField(max_length=150)
    recorded_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "price"
        verbose_name_plural = "prices"
        indexes = [
            models.Index(fields=["sku", "service_tier", "context_over"]),
            models.Index(fields=["service_tier", "-id"], name="price_version_tier"),
            models.Index(fields=["free", "-id"], name="price_version_free"),
            models.Index(fields=["source", "-id"], name="price_version_source"),
        ]
        constraints = [
            models.CheckConstraint(condition=_not_negative(), name="price_not_negative"),
            models.CheckConstraint(condition=_free_or_paid(), name="price_zero_only_if_free"),
            models.CheckConstraint(
                condition=Q(from_minute__gte=0, from_minute__lt=1440)
                & Q(to_minute__gte=0, to_minute__lt=1440)
                & (~Q(from_minute=F("to_minute")) | Q(from_minute=0)),
                name="price_hours_of_a_day",
            ),
            models.CheckConstraint(
                condition=Q(price_list=None, made_from=None, change_ppm=None)
                | Q(price_list__isnull=False, made_from__isnull=False, change_ppm__isnull=False),
                name="price_of_a_list_says_its_origin",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sku} v{self.pk}"
