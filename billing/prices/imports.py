"""Takes over a published price history in bulk, as dated immutable versions.

Only for skus that have no price yet: what a newer history would change is proposed to a person
(`proposals`). Single prices are published by `billing.prices.versions`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Exists, OuterRef

from billing import locks
from billing.models import PriceVersion, Sku
from billing.prices import lists as price_lists
from billing.rates import ALL_DAY, Rates, Window

BATCH_SIZE = 1_000
# Stands for "since before the data begins" in histories that do not say when a price began.
HISTORY_BEGINS = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DatedRates:
    """Rates from a moment until the next version, or for good, at some hours or all day."""

    service_tier: int
    context_over: int
    valid_from: datetime
    valid_to: datetime | None
    rates: Rates
    window: Window = ALL_DAY

    def holds_at(self, when: datetime) -> bool:
        return self.valid_from <= when and (self.valid_to is None or when < self.valid_to)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: versions added, skus left alone because they have a price."""

    added: int
    left_alone: int


def is_known(family: str) -> bool:
    """Whether prices of this source, of whatever release, have been taken over already."""
    return PriceVersion.objects.filter(source__startswith=family).exists()


@transaction.atomic
def import_history(
    history: Mapping[str, Sequence[DatedRates]], *, source: str, recorded_by: str
) -> Imported:
    """Give each sku without any price its versions; all or nothing."""
    locks.prices_until_commit()
    Sku.objects.bulk_create([Sku(code=code) for code in history], ignore_conflicts=True)
    fresh = Sku.objects.filter(code__in=history).exclude(
        Exists(PriceVersion.objects.filter(sku=OuterRef("pk")))
    )
    made = PriceVersion.objects.bulk_create(
        (_row(sku, version, source, recorded_by) for sku in fresh for version in history[sku.code]),
        batch_size=BATCH_SIZE,
    )
    price_lists.follow(made)
    return Imported(added=len(made), left_alone=len(history) - len(fresh))


def _row(sku: Sku, version: DatedRates, source: str, recorded_by: str) -> PriceVersion:
    return PriceVersion(
        sku=sku,
        service_tier=version.service_tier,
        context_over=version.context_over,
        from_minute=version.window.from_minute,
        to_minute=version.window.to_minute,
        during=DateTimeTZRange(version.valid_from, version.valid_to),
        free=version.rates.all_zero,
        source=source,
        recorded_by=recorded_by,
        **dict(version.rates.items()),
    )
