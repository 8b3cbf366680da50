"""What a drained entry is worth: rated again, compared, and split between tenant and house. Pure.

A figure that does not add up is quarantined with its reason: kept, not billed, and still debited
in Redis until a person resolves it. Two results are never averaged.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from billing import events, rating
from billing.holding.usage_stream import StreamEntry
from billing.money import PICO_PER_NANO, nano_ceil
from billing.rating import Price, PriceNotFound
from billing.usage import UsageError

BIGINT_MAX: Final = 2**63 - 1


class Prior(msgspec.Struct, frozen=True):
    """What the expiry of the same attempt has booked already."""

    tenant_pico: int = 0
    supplier_pico: int = 0
    exposure_pico: int = 0
    transfer_id: int | None = None


class Assessed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`rated_pico` is usage × price. The tenant pays `tenant_pico` of it, the house
    `overage_pico`, and what is left was paid at the attempt's expiry."""

    quarantine_reason: str = ""
    price: int | None = None
    rated_pico: int = 0
    tenant_pico: int = 0
    supplier_pico: int = 0
    overage_pico: int = 0
    exposure_pico: int = 0
    wasted: bool = False


class _Doubtful(Exception):
    pass


def assess(entry: StreamEntry, prices: Mapping[int, Price], prior: Prior) -> Assessed:
    """Rate an entry by the versions its request was admitted with."""
    try:
        _check_bounds(entry)
        if entry.expired:
            return _expired(entry, prices)
        if not entry.event.billable:
            return _unpaid(entry, prior)
        return _paid(entry, prices, prior)
    except (_Doubtful, UsageError, PriceNotFound) as problem:
        known = entry.event.price in prices
        return Assessed(
            quarantine_reason=str(problem)[:200], price=entry.event.price if known else None
        )


def _check_bounds(entry: StreamEntry) -> None:
    event, usage = entry.event, entry.event.usage
    counts: tuple[int, ...] = (event.tenant_cost_pico, event.supplier_cost_pico)
    if usage is not None:
        counts += msgspec.structs.astuple(usage)
    if min(counts) < 0 or max(counts) > BIGINT_MAX:
        raise _Doubtful("a figure is negative or beyond all bounds")


def _paid(entry: StreamEntry, prices: Mapping[int, Price], prior: Prior) -> Assessed:
    version, rated_pico = _rated(entry, prices)
    if not entry.late and not _debited_in_full(entry, rated_pico):
        raise _Doubtful("debited differently from what it was rated")
    due_pico = rated_pico - prior.tenant_pico
    tenant_pico = due_pico
    if entry.overage_nano:
        tenant_pico = min(due_pico, entry.debit_nano * PICO_PER_NANO)
    return Assessed(
        price=version,
        rated_pico=rated_pico,
        tenant_pico=tenant_pico,
        overage_pico=due_pico - tenant_pico,
        supplier_pico=entry.event.supplier_cost_pico - prior.supplier_pico,
        exposure_pico=-prior.exposure_pico,
    )


def _debited_in_full(entry: StreamEntry, rated_pico: int) -> bool:
    return entry.debit_nano + entry.overage_nano == nano_ceil(rated_pico)


def _rated(entry: StreamEntry, prices: Mapping[int, Price]) -> tuple[int, int]:
    event = entry.event
    if event.usage is None:
        raise _Doubtful(event.problem or "no usage where a count is due")
    if event.price is None:
        served = events.detail_of(event).served_tier
        raise _Doubtful(
            "the data plane found no pinned price that fits"
            + (f", served tier {served}" if served else "")
        )
    pinned = [prices[version] for version in event.prices if version in prices]
    chosen = rating.choose(
        [price for price in pinned if price.sku == event.sku],
        service_tier=event.service_tier,
        input_tokens=event.usage.input_tokens,
    )
    if chosen.version != event.price:
        raise _Doubtful(f"rated by version {event.price}, but {chosen.version} applies")
    rated_pico = rating.rate(event.usage, chosen)
    if rated_pico != event.tenant_cost_pico:
        raise _Doubtful(f"rated {event.tenant_cost_pico}, again {rated_pico}")
    if rated_pico > BIGINT_MAX:
        raise _Doubtful("the cost is beyond all bounds")
    return chosen.version, rated_pico


def _unpaid(entry: StreamEntry, prior: Prior) -> Assessed:
    """A failed attempt: nothing for the tenant, whatever it cost us."""
    if entry.event.tenant_cost_pico or (entry.debit_nano and not entry.late):
        raise _Doubtful("charged although nobody is to pay for it")
    return Assessed(
        tenant_pico=-prior.tenant_pico,
        supplier_pico=entry.event.supplier_cost_pico - prior.supplier_pico,
        exposure_pico=-prior.exposure_pico,
        wasted=True,
    )


def _expired(entry: StreamEntry, prices: Mapping[int, Price]) -> Assessed:
    """The tenant pays to the last checkpoint; up to the hold, we may still be billed."""
    event = entry.event
    version, rated_pico, tenant_pico = None, 0, 0
    if event.billable and event.usage is not None:
        version, rated_pico = _rated(entry, prices)
        tenant_pico = min(rated_pico, entry.debit_nano * PICO_PER_NANO)
    elif entry.debit_nano:
        raise _Doubtful("charged although nothing says for what")
    return Assessed(
        price=version,
        rated_pico=rated_pico,
        tenant_pico=tenant_pico,
        supplier_pico=event.supplier_cost_pico,
        exposure_pico=max(entry.hold_nano * PICO_PER_NANO - tenant_pico, 0),
        wasted=not tenant_pico,
    )
