"""Holds our list prices against a second source: more than one per cent apart is an alert.

Nothing is changed by it; the bill follows approved prices only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction

from billing.invariant_results import report
from billing.kinds import ServiceTier
from billing.models import PriceDisagreement
from billing.prices import versions as prices
from billing.rates import PPM
from billing.rating import Price

TOLERANCE_PPM: Final = 10_000
ALERT: Final = "a second source's prices agree within 1 %"
# Theirs: sku -> rate -> pico-dollars per token.
Stated = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Compared:
    """Skus that both sides price, rates compared, rates that are apart, skus only they have."""

    skus: int
    rates: int
    apart: int
    unknown: int


@transaction.atomic
def compare(stated: Stated, *, source: str, now: datetime) -> Compared:
    """Keep one open disagreement per rate that is apart; end those that agree again."""
    ours = {sku: price for sku, found in prices.in_force(now).items() if (price := _plain(found))}
    standing = {
        (row.sku, row.rate): row
        for row in PriceDisagreement.objects.select_for_update().filter(
            source=source, ended_at=None
        )
    }
    compared = apart = 0
    for sku in stated.keys() & ours.keys():
        for rate, theirs_pico in stated[sku].items():
            ours_pico = getattr(ours[sku], rate)
            if ours_pico is None:
                continue
            compared += 1
            if differs(ours_pico, theirs_pico):
                apart += 1
                row = standing.pop((sku, rate), None) or PriceDisagreement(
                    sku=sku, rate=rate, source=source, found_at=now
                )
                row.ours_pico, row.theirs_pico, row.seen_at = ours_pico, theirs_pico, now
                row.save()
    agreeing = [row.pk for (sku, _), row in standing.items() if sku in stated]
    PriceDisagreement.objects.filter(pk__in=agreeing).update(ended_at=now)
    _report(now)
    return Compared(
        skus=len(stated.keys() & ours.keys()),
        rates=compared,
        apart=apart,
        unknown=len(stated.keys() - ours.keys()),
    )


@transaction.atomic
def forget(*, source: str, now: datetime) -> None:
    """End what stands open of a source that is not asked any more."""
    PriceDisagreement.objects.filter(source=source, ended_at=None).update(ended_at=now)
    _report(now)


def _report(now: datetime) -> None:
    open_now = PriceDisagreement.objects.filter(ended_at=None).count()
    report(ALERT, not open_now, f"{open_now} rates are apart" if open_now else "", now)


def _plain(found: tuple[Price, ...]) -> Price | None:
    """The default tier at the lowest context: what price lists of others mean."""
    return next(
        (p for p in found if p.service_tier == ServiceTier.DEFAULT and not p.context_over), None
    )


def differs(ours_pico: int, theirs_pico: int) -> bool:
    """More than one per cent of the greater one apart."""
    greater = max(ours_pico, theirs_pico)
    return abs(ours_pico - theirs_pico) * PPM > greater * TOLERANCE_PPM
