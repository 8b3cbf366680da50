"""What the tenant's own recent traffic would cost elsewhere: the same tokens at today's prices.

Like is held with like: both where it was bought and elsewhere at what this tenant pays now, so
that its plan's margin is on both sides. Tokens and cache hits stay as they were; only offers that
can be called now take part. Models that nobody can serve now stay where they were bought.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from billing.books.usage_sums import OfferUsage, used_by_offer
from gateway.console import own_prices
from gateway.console.own_prices import OwnPrices
from gateway.routing.policies import PolicyKind
from providers.boards import leaderboards
from providers.boards.shapes import Row

LOOKED_BACK: Final = timedelta(days=7)
WINDOW: Final = "7d"


@dataclass(frozen=True, slots=True)
class ModelUse:
    """All that was used of one model, the offers that sell it, and what they ask of the tenant."""

    model: str
    parts: Sequence[OfferUsage]
    rows: Sequence[Row]
    prices: OwnPrices

    @property
    def requests(self) -> int:
        return sum(part.requests for part in self.parts)

    @property
    def as_bought_pico(self) -> int:
        """These tokens where they were bought, at today's prices: what everything is held
        against. Where nothing is asked there any more, what was charged."""
        return sum(self._again(part) for part in self.parts)

    def at(self, row: Row) -> int | None:
        """What these tokens cost at another offer; None where it has no price for them."""
        costs = [self._cost(row.sku, part) for part in self.parts]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def cheapest_of(self, rows: Iterable[Row]) -> tuple[int, Row] | None:
        priced = [(cost, row) for row in rows if (cost := self.at(row)) is not None]
        return min(priced, key=lambda pair: pair[0], default=None)

    @property
    def callable_rows(self) -> list[Row]:
        return [row for row in self.rows if row.routable]

    def _again(self, part: OfferUsage) -> int:
        cost = self._cost(part.sku, part)
        return part.cost_pico if cost is None else cost

    def _cost(self, sku: str, part: OfferUsage) -> int | None:
        return self.prices.cost_pico(sku, part.usage, requests=part.requests)


@dataclass(frozen=True, slots=True)
class Saving:
    """One thing that would have been cheaper, and what stands in its way, if anything."""

    model: str
    offer: str
    saved_pico: int
    needs: str
    requests: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What a policy would have made of the same traffic."""

    kind: str
    cost_pico: int
    change_percent: float | None


def recent_use(tenant_id: int, *, now: datetime) -> list[ModelUse]:
    by_model: dict[str, list[OfferUsage]] = defaultdict(list)
    for used in used_by_offer(tenant_id, since=now - LOOKED_BACK, until=now):
        by_model[used.model].append(used)
    boards = {model: leaderboards.board(model, WINDOW) for model in by_model}
    rows = {model: () if board is None else board.rows for model, board in boards.items()}
    skus = {used.sku for parts in by_model.values() for used in parts}
    skus |= {row.sku for offered in rows.values() for row in offered}
    prices = own_prices.read(tenant_id, skus, now=now)
    return [ModelUse(model, parts, rows[model], prices) for model, parts in by_model.items()]


def savings(uses: Iterable[ModelUse]) -> list[Saving]:
    """For each model the cheapest offer elsewhere, where that is cheaper; greatest saving first."""
    found = []
    for use in uses:
        best = use.cheapest_of(use.rows)
        if best is None or best[0] >= use.as_bought_pico:
            continue
        cost, row = best
        found.append(
            Saving(
                model=use.model,
                offer=f"{row.provider_name} {row.variant}".strip(),
                saved_pico=use.as_bought_pico - cost,
                needs="" if row.routable else row.not_routable,
                requests=use.requests,
            )
        )
    return sorted(found, key=lambda s: (bool(s.needs), -s.saved_pico))


def effect(uses: Sequence[ModelUse], *, kind: str, pinned_skus: Sequence[str] = ()) -> Effect:
    bought = sum(use.as_bought_pico for use in uses)
    cost = sum(_cost_under(use, kind, pinned_skus) for use in uses)
    change = None if not bought else round((cost - bought) * 100 / bought, 1)
    return Effect(kind=kind, cost_pico=cost, change_percent=change)


def _cost_under(use: ModelUse, kind: str, pinned_skus: Sequence[str]) -> int:
    rows = use.callable_rows
    if kind == PolicyKind.IN_HOUSE_FIRST:
        rows = [row for row in rows if row.kind != "external"] or rows
    if kind == PolicyKind.PINNED:
        by_sku = {row.sku: row for row in rows}
        rows = [by_sku[sku] for sku in pinned_skus if sku in by_sku][:1]
    if kind == PolicyKind.FASTEST:
        measured = [(row.output_tps.p50, row) for row in rows if row.output_tps]
        rows = [max(measured, key=lambda pair: pair[0])[1]] if measured else rows
    best = use.cheapest_of(rows)
    return use.as_bought_pico if best is None else best[0]
