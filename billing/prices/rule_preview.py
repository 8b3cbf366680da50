"""What a rule of a price list would make of which prices, and for whom, before it is set."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from billing.models import PriceList, PriceVersion
from billing.prices import plans
from billing.prices import versions as prices
from billing.prices.patterns import in_force, require_match

SHOWN_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Change:
    """One price in force, with what it comes to for this list now and under the rule."""

    sku: str
    old_input_pico: int
    new_input_pico: int
    old_output_pico: int
    new_output_pico: int


@dataclass(frozen=True, slots=True)
class RulePreview:
    changes: Sequence[Change]
    prices: int
    tenants: Sequence[str]
    more_tenants: int


def preview(*, price_list: PriceList, pattern: str, change_ppm: int, now: datetime) -> RulePreview:
    """PriceRefused where the rule matches nothing."""
    require_match(pattern, now=now)
    bases = list(in_force(pattern, now))
    own = {
        version.made_from_id: version
        for version in PriceVersion.objects.filter(
            price_list=price_list, during__contains=now, made_from__in=bases
        )
    }
    names = _tenants(price_list, now)
    return RulePreview(
        changes=[_change(base, own.get(base.pk), change_ppm) for base in bases[:SHOWN_MAX]],
        prices=len(bases),
        tenants=names[:SHOWN_MAX],
        more_tenants=max(0, len(names) - SHOWN_MAX),
    )


def _change(base: PriceVersion, own: PriceVersion | None, change_ppm: int) -> Change:
    new, old = prices.rates_of(base).changed(change_ppm), own or base
    return Change(
        sku=base.sku.code,
        old_input_pico=old.input_pico,
        new_input_pico=new.input_pico,
        old_output_pico=old.output_pico,
        new_output_pico=new.output_pico,
    )


def _tenants(price_list: PriceList, now: datetime) -> list[str]:
    """Who pays by this list, or will: nobody where it says what suppliers charge us."""
    if price_list.tenant is not None:
        return [price_list.tenant.name]
    on_plan = plans.tenants_on(price_list, now).order_by("name")
    return list(on_plan.values_list("name", flat=True))
