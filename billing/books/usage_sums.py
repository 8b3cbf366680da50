"""Sums of usage for people: spend by day, totals, use by offer, when a key was last used.

Read only, from the rollups, so that they cost the same at a thousand events and at ten million.
Every function takes the tenant and answers nothing of another. A span is made of whole hours
(UTC): it is widened to them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from django.db.models import F, Max, Min, QuerySet, Sum

from billing.models import UsageDay, UsageHour
from billing.outcomes import OUTCOMES
from billing.usage import CanonicalUsage

HOUR: Final = timedelta(hours=1)
CHOICES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class DaySpend:
    """`requests` counts a request where its first attempt was, so that they sum to the total."""

    day: date
    model: str
    supplier: str
    cost_pico: int
    requests: int
    attempts: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class OfferUsage:
    """What a tenant paid for of one offer over a span of time. `requests` counts its attempts."""

    model: str
    sku: str
    requests: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost_pico: int

    @property
    def usage(self) -> CanonicalUsage:
        return CanonicalUsage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cache_read_tokens=self.cache_read_tokens,
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """`cache_saved_pico`: what the cached input would have cost more as uncached input."""

    requests: int
    attempts: int
    cost_pico: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cache_saved_pico: int


def spend_by_day(tenant_id: int, *, since: datetime, until: datetime) -> list[DaySpend]:
    """Spend per UTC day, model and supplier, oldest day first."""
    found = (
        _between(tenant_id, since, until)
        .values("day", "model", "supplier")
        .annotate(
            cost=Sum("cost_pico"),
            request_count=Sum("requests"),
            attempt_count=Sum("attempts"),
            input=Sum("input_tokens"),
            output=Sum("output_tokens"),
        )
        .order_by("day", "model", "supplier")
    )
    return [
        DaySpend(
            day=row["day"],
            model=row["model"],
            supplier=row["supplier"],
            cost_pico=int(row["cost"]),
            requests=int(row["request_count"]),
            attempts=int(row["attempt_count"]),
            input_tokens=int(row["input"]),
            output_tokens=int(row["output"]),
        )
        for row in found
    ]


def used_by_offer(tenant_id: int, *, since: datetime, until: datetime) -> list[OfferUsage]:
    """What was used and paid per offer, by model and sku."""
    found = (
        _between(tenant_id, since, until)
        .filter(paid=True)
        .values("model", "sku")
        .annotate(
            attempt_count=Sum("attempts"),
            input=Sum("input_tokens"),
            cached=Sum("cache_read_tokens"),
            output=Sum("output_tokens"),
            cost=Sum("cost_pico"),
        )
        .order_by("model", "sku")
    )
    return [
        OfferUsage(
            model=row["model"],
            sku=row["sku"],
            requests=int(row["attempt_count"]),
            input_tokens=int(row["input"]),
            cache_read_tokens=int(row["cached"]),
            output_tokens=int(row["output"]),
            cost_pico=int(row["cost"]),
        )
        for row in found
        if row["attempt_count"]
    ]


def totals(tenant_id: int, *, since: datetime, until: datetime) -> Totals:
    """Everything that the tenant used over a span of time."""
    price = F("price_version__input_pico") - F("price_version__cache_read_pico")
    found = _between(tenant_id, since, until).aggregate(
        request_count=Sum("requests"),
        attempt_count=Sum("attempts"),
        cost=Sum("cost_pico"),
        input=Sum("input_tokens"),
        cached=Sum("cache_read_tokens"),
        output=Sum("output_tokens"),
        saved=Sum(F("cache_read_tokens") * price),
    )
    return Totals(
        requests=_int(found["request_count"]),
        attempts=_int(found["attempt_count"]),
        cost_pico=_int(found["cost"]),
        input_tokens=_int(found["input"]),
        cache_read_tokens=_int(found["cached"]),
        output_tokens=_int(found["output"]),
        cache_saved_pico=_int(found["saved"]),
    )


def _int(value: int | Decimal | None) -> int:
    return 0 if value is None else int(value)


def _between(tenant_id: int, since: datetime, until: datetime) -> QuerySet[UsageHour]:
    first = since.replace(minute=0, second=0, microsecond=0)
    return UsageHour.objects.filter(tenant_id=tenant_id, hour__gte=first, hour__lt=until)


def filter_choices(tenant_id: int, *, since: datetime) -> dict[str, list[str]]:
    """The models and suppliers that occurred lately, and every outcome, for a page's filters."""
    found = UsageHour.objects.filter(tenant_id=tenant_id, hour__gt=since - HOUR)
    occurred = {
        field: sorted(found.order_by().values_list(field, flat=True).distinct()[:CHOICES_MAX])
        for field in ("model", "supplier")
    }
    return {**occurred, "outcome": list(OUTCOMES)}


def last_used(tenant_id: int, key_ids: Collection[int], *, since: datetime) -> dict[int, datetime]:
    """When each of these API keys of the tenant was last used since then, by key id."""
    found = (
        UsageDay.objects.filter(
            tenant_id=tenant_id,
            # A request may have been made on the day before its attempt.
            day__gte=since.date() - timedelta(days=1),
            last_at__gte=since,
            api_key_id__in=key_ids,
        )
        .values("api_key_id")
        .annotate(at=Max("last_at"))
    )
    return {int(row["api_key_id"] or 0): row["at"] for row in found}


def charged_since(sku: str, *, since: datetime, at_most: int) -> list[tuple[str, int, int]]:
    """Which tenants paid for a sku since the hour of a moment: name, attempts and pico-dollars, the
    most first."""
    found = (
        UsageHour.objects.filter(
            sku=sku, paid=True, hour__gte=since.replace(minute=0, second=0, microsecond=0)
        )
        .values("tenant__name")
        .annotate(attempt_count=Sum("attempts"), cost=Sum("cost_pico"))
        .order_by("-attempt_count", "tenant__name")[:at_most]
    )
    return [(row["tenant__name"], int(row["attempt_count"]), int(row["cost"])) for row in found]


def first_used_hour(tenant_id: int) -> datetime | None:
    """The hour of the tenant's first request; None before it."""
    found = UsageHour.objects.filter(tenant_id=tenant_id).aggregate(at=Min("hour"))
    at: datetime | None = found["at"]
    return at
