"""Takes over a published price history in bulk, as dated immutable versions.

Running it again with the same history changes nothing. A sku that somebody priced by hand is left
alone. Single prices are published by `billing.prices`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing.models import PriceVersion, Sku
from billing.prices import Rates

BATCH_SIZE = 1_000
# Stands for "since before the data begins" in histories that do not say when a price began.
HISTORY_BEGINS = datetime(2020, 1, 1, tzinfo=UTC)
Slot = tuple[int, int, datetime]  # service tier, context threshold, valid from


@dataclass(frozen=True, slots=True)
class DatedRates:
    """Rates from a moment until the next version, or for good."""

    service_tier: int
    context_over: int
    valid_from: datetime
    valid_to: datetime | None
    rates: Rates

    @property
    def slot(self) -> Slot:
        return (self.service_tier, self.context_over, self.valid_from)


@dataclass(slots=True)
class Imported:
    """What an import did: versions added, open versions closed, skus left to a person."""

    added: int = 0
    closed: int = 0
    left_alone: int = 0


@transaction.atomic
def import_history(
    history: Mapping[str, Sequence[DatedRates]], *, source: str, recorded_by: str
) -> Imported:
    """Bring each sku's versions up to this history; all or nothing."""
    Sku.objects.bulk_create([Sku(code=code) for code in history], ignore_conflicts=True)
    skus = {sku.code: sku for sku in Sku.objects.filter(code__in=history)}
    known: dict[int, list[PriceVersion]] = {}
    for version in PriceVersion.objects.filter(sku__in=skus.values()):
        known.setdefault(version.sku_id, []).append(version)
    done = Imported()
    fresh: list[PriceVersion] = []
    for code, versions in history.items():
        sku = skus[code]
        existing = known.get(sku.pk, [])
        if any(version.source != source for version in existing):
            done.left_alone += 1
            continue
        missing = _close_and_find_missing(existing, versions, done)
        fresh.extend(_row(sku, version, source, recorded_by) for version in missing)
    PriceVersion.objects.bulk_create(fresh, batch_size=BATCH_SIZE)
    done.added = len(fresh)
    return done


def _close_and_find_missing(
    existing: list[PriceVersion], versions: Sequence[DatedRates], done: Imported
) -> list[DatedRates]:
    by_slot = {(v.service_tier, v.context_over, v.during.lower): v for v in existing}
    missing = []
    for version in versions:
        row = by_slot.get(version.slot)
        if row is None:
            missing.append(version)
        elif row.during.upper is None and version.valid_to is not None:
            row.during = DateTimeTZRange(row.during.lower, version.valid_to)
            row.save(update_fields=["during"])
            done.closed += 1
    return missing


def _row(sku: Sku, version: DatedRates, source: str, recorded_by: str) -> PriceVersion:
    return PriceVersion(
        sku=sku,
        service_tier=version.service_tier,
        context_over=version.context_over,
        during=DateTimeTZRange(version.valid_from, version.valid_to),
        free=version.rates.all_zero,
        source=source,
        recorded_by=recorded_by,
        **dict(version.rates.items()),
    )
