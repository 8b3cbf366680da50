"""Prices: immutable dated versions per (sku, service tier, context tier), never overlapping."""

from django.contrib.postgres.fields import DateTimeRangeField
from django.db import models
from django.db.models import Q


class Sku(models.Model):
    """The billing key of an offer. Billing knows nothing else about what is sold."""

    code = models.CharField(max_length=200, unique=True)

    def __str__(self) -> str:
        return self.code


class ServiceTier(models.IntegerChoices):
    DEFAULT = 0
    FLEX = 1
    PRIORITY = 2
    BATCH = 3


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


class PriceVersion(models.Model):
    """Rates in integer pico-dollars per token over `during`; every text leaf is resolved here.

    `context_over` is a cliff: the version applies to all tokens of a request whose input is
    strictly greater. A null audio or image rate means that the unit is not sold at this sku.
    The migration adds the exclusion constraint, and a trigger that refuses any update but
    closing an open `during`.
    """

    sku = models.ForeignKey(Sku, on_delete=models.PROTECT, related_name="prices")
    service_tier = models.SmallIntegerField(choices=ServiceTier, default=ServiceTier.DEFAULT)
    context_over = models.IntegerField(default=0)
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
    source = models.CharField(max_length=120)
    note = models.CharField(max_length=300, blank=True)
    recorded_by = models.CharField(max_length=150)
    recorded_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["sku", "service_tier", "context_over"])]
        constraints = [
            models.CheckConstraint(condition=_not_negative(), name="price_not_negative"),
            models.CheckConstraint(condition=_free_or_paid(), name="price_zero_only_if_free"),
        ]

    def __str__(self) -> str:
        return f"{self.sku} v{self.pk}"
