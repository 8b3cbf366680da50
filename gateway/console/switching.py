"""What an exported month of somebody's usage would cost at every offer of the same models.

The same tokens at what this tenant would pay now; cache hits stay as they were. Sums of many
requests do not tell one prompt's length, so prices by length are taken at their lowest step.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.console import own_prices
from gateway.console.own_prices import OwnPrices
from providers.imports.usage_files import ModelUsage, UsageFile
from providers.market import offers
from providers.market.model_names import name_of
from providers.models import Model, Offer

SHOWN_MAX: Final = 8
DATE: Final = re.compile(r"-(20\d{2}-\d{2}-\d{2}|20\d{6})$")


@dataclass(frozen=True, slots=True)
class Choice:
    """One offer of the same model. `needs` is what stands in its way; empty where it can serve."""

    sku: str
    provider: str
    provider_name: str
    cost_pico: int
    needs: str


@dataclass(frozen=True, slots=True)
class Repriced:
    """One model of the file, with its offers, the cheapest that can serve first."""

    used: ModelUsage
    model: str
    choices: Sequence[Choice]

    @property
    def best(self) -> Choice | None:
        return next((choice for choice in self.choices if not choice.needs), None)

    @property
    def before_pico(self) -> int | None:
        """What was paid; where the file does not say, the same seller's list price now."""
        if self.used.paid_pico is not None:
            return self.used.paid_pico
        own = [c.cost_pico for c in self.choices if c.provider == self.used.provider]
        return min(own, default=None)

    @property
    def is_stated(self) -> bool:
        return self.used.paid_pico is not None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole file. Totals are over `compared`: models with a cost before and an offer now."""

    rows: Sequence[Repriced]
    unknown: Sequence[ModelUsage]

    @property
    def compared(self) -> list[Repriced]:
        return [row for row in self.rows if row.best and row.before_pico is not None]

    @property
    def before_pico(self) -> int:
        return sum(row.before_pico or 0 for row in self.compared)

    @property
    def after_pico(self) -> int:
        return sum(row.best.cost_pico for row in self.compared if row.best)

    @property
    def all_stated(self) -> bool:
        return all(row.is_stated for row in self.compared)


def compare(found: UsageFile, *, tenant_id: int, now: datetime) -> Comparison:
    used = sorted(found.models.values(), key=_weight, reverse=True)
    slugs = _slugs(used)
    sold = list(
        Offer.objects.filter(model__slug__in=set(slugs.values()))
        .exclude(state=Offer.State.DISABLED)
        .select_related("provider", "model")
    )
    prices = own_prices.read(tenant_id, [offer.sku for offer in sold], now=now)
    refusals = offers.refusals(sold, priced=prices.books)
    by_model: dict[str, list[Offer]] = {}
    for offer in sold:
        by_model.setdefault(offer.model.slug, []).append(offer)
    known = [each for each in used if (each.provider, each.model) in slugs]
    return Comparison(
        rows=[
            _repriced(each, slug, by_model.get(slug, ()), prices, refusals)
            for each in known
            if (slug := slugs[each.provider, each.model])
        ],
        unknown=[each for each in used if (each.provider, each.model) not in slugs],
    )


def _weight(used: ModelUsage) -> tuple[int, int]:
    return (used.paid_pico or 0, used.usage.input_tokens + used.usage.output_tokens)


def _slugs(used: Iterable[ModelUsage]) -> dict[tuple[str, str], str]:
    """Which of our models each one is, by name; a date at its end names one release of it."""
    named: dict[tuple[str, str], tuple[str, ...]] = {}
    for each in used:
        slug = name_of(each.provider, each.model).slug
        named[each.provider, each.model] = (slug, DATE.sub("", slug))
    wanted = {slug for slugs in named.values() for slug in slugs}
    known = set(Model.objects.filter(slug__in=wanted).values_list("slug", flat=True))
    return {
        key: next(slug for slug in slugs if slug in known)
        for key, slugs in named.items()
        if known.intersection(slugs)
    }


def _repriced(
    used: ModelUsage,
    slug: str,
    sold: Iterable[Offer],
    prices: OwnPrices,
    refusals: Mapping[int, str],
) -> Repriced:
    choices = []
    for offer in sold:
        cost = prices.cost_pico(offer.sku, used.usage, requests=used.requests)
        if cost is not None:
            choices.append(
                Choice(
                    sku=offer.sku,
                    provider=offer.provider.slug,
                    provider_name=f"{offer.provider.name} {offer.variant}".strip(),
                    cost_pico=cost,
                    needs=refusals[offer.pk],
                )
            )
    choices.sort(key=lambda choice: (bool(choice.needs), choice.cost_pico, choice.sku))
    return Repriced(used, slug, choices)
