"""Tiers over a period's total: graduated (each part at its own tier) and volume (all of it at the
tier that it reaches). Pure, in integers of whatever unit; a tier's upper end belongs to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TIERS_MAX: Final = 20


class TiersRefused(ValueError):
    """Tiers that leave a gap, overlap, or make no sense."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Up to this quantity (None: without end) each unit is worth `unit`, entering it `flat`."""

    up_to: int | None
    unit: int
    flat: int = 0


def check(tiers: Sequence[Tier]) -> None:
    """TiersRefused unless they rise from nothing to no end."""
    if not 0 < len(tiers) <= TIERS_MAX:
        raise TiersRefused(f"give 1 to {TIERS_MAX} tiers")
    if tiers[-1].up_to is not None or any(tier.up_to is None for tier in tiers[:-1]):
        raise TiersRefused("the last tier has no end, and only the last")
    reached = 0
    for tier in tiers:
        for value in (tier.unit, tier.flat, *([] if tier.up_to is None else [tier.up_to])):
            if type(value) is not int or value < 0:
                raise TiersRefused(f"not a whole number from nothing up: {value!r}")
        if tier.up_to is not None and tier.up_to <= reached:
            raise TiersRefused(f"a tier ends at {tier.up_to}, where the one before it ended")
        reached = tier.up_to or reached


def graduated(quantity: int, tiers: Sequence[Tier]) -> int:
    """Each part of the quantity at its own tier; the flat part of every tier that is entered."""
    total = reached = 0
    for number, tier in enumerate(tiers):
        if number and quantity <= reached:
            break
        ends = quantity if tier.up_to is None else min(quantity, tier.up_to)
        total += (ends - reached) * tier.unit + tier.flat
        reached = ends if tier.up_to is None else tier.up_to
    return total


def volume(quantity: int, tiers: Sequence[Tier]) -> int:
    """All of the quantity at the one tier that it reaches."""
    tier = next(tier for tier in tiers if tier.up_to is None or quantity <= tier.up_to)
    return quantity * tier.unit + tier.flat
