"""A batch of stream entries, rated and packed for PostgreSQL.

Most batches can be rated before their turn, while PostgreSQL works on the batch before. Not so one
with a late settle, whose expiry that batch may hold, nor one that names a price not read yet: these
are rated when the batch before has committed, by the same function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from django.db import DataError

from billing.drain import assessment, usage_rows
from billing.drain.assessment import Assessed, Prior
from billing.drain.pinned_prices import PinnedPrices
from billing.drain.postings import Posted
from billing.drain.usage_rows import Packed
from billing.holding.usage_stream import StreamEntry, Unreadable
from billing.models import ProviderBill, UsageEvent
from billing.money import PICO_PER_NANO
from billing.rating import Price

NO_PRIOR: Final = Prior()

Priors = dict[tuple[str, int], Prior]


@dataclass(frozen=True, slots=True)
class Rated:
    """Entries with what they are worth, and their rows as `usage_rows.write` takes them."""

    items: Sequence[Posted]
    rows: Sequence[Packed]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read found; `rated` is None where the entries have to wait for their turn."""

    entries: Sequence[StreamEntry]
    unreadable: Sequence[Unreadable]
    rated: Rated | None

    @property
    def read(self) -> int:
        return len(self.entries) + len(self.unreadable)


def rate_ahead(found: Sequence[StreamEntry | Unreadable], pinned: PinnedPrices) -> Batch:
    """Rate what needs nothing from PostgreSQL. Pure, but for the prices that others add."""
    entries = [item for item in found if isinstance(item, StreamEntry)]
    unreadable = [item for item in found if isinstance(item, Unreadable)]
    rated = None
    if not any(entry.late for entry in entries) and pinned.has_all_of(entries):
        try:
            rated = _rate(entries, pinned.known, {})
        except DataError:
            # When its turn comes it is refused again, and halved until the one at fault is found.
            rated = None
    return Batch(entries, unreadable, rated)


def rate_now(entries: Sequence[StreamEntry], pinned: PinnedPrices) -> Rated:
    """Rate with what PostgreSQL knows; DataError where no column can hold a row."""
    return _rate(entries, pinned.of(entries), _priors([entry for entry in entries if entry.late]))


def _rate(entries: Sequence[StreamEntry], prices: Mapping[int, Price], found: Priors) -> Rated:
    items = []
    for entry in entries:
        event = entry.event
        prior = NO_PRIOR
        if entry.late:
            prior = found.get((event.request_id, event.attempt), NO_PRIOR)
        result = assessment.assess(entry, prices, prior)
        items.append((entry, result, prior))
        if entry.expired:
            # Its late settle may be in this very batch.
            found.setdefault((event.request_id, event.attempt), _prior_of(entry, result))
    return Rated(items, usage_rows.pack(items))


def _prior_of(entry: StreamEntry, result: Assessed) -> Prior:
    if result.quarantine_reason:
        return Prior(tenant_pico=entry.debit_nano * PICO_PER_NANO)
    return Prior(result.tenant_pico, result.supplier_pico, result.exposure_pico)


def _priors(late: Sequence[StreamEntry]) -> Priors:
    """The expiries of requests that were settled after all."""
    if not late:
        return {}
    rows = UsageEvent.objects.filter(
        request_id__in={entry.event.request_id for entry in late}, attempt__lt=0
    )
    return {(str(row.request_id), -row.attempt - 1): _stored_prior(row) for row in rows}


def _is_released(row: UsageEvent) -> bool:
    """Whether a bill that was accepted since has ended what it may still have cost us."""
    accepted = ProviderBill.objects.filter(
        supplier=row.supplier, first_day__lte=row.day, last_day__gte=row.day
    )
    return accepted.filter(accepted_at__gte=row.drained_at).exists()


def _stored_prior(row: UsageEvent) -> Prior:
    if row.state == UsageEvent.State.QUARANTINED:
        return Prior(tenant_pico=row.charged_nano * PICO_PER_NANO)
    exposure_pico = max(row.hold_nano * PICO_PER_NANO - row.tenant_cost_pico, 0)
    if exposure_pico and _is_released(row):
        exposure_pico = 0
    return Prior(row.tenant_cost_pico, row.supplier_cost_pico, exposure_pico, row.transfer_id)
