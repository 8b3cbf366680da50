"""What the tenant's own recent traffic would cost elsewhere: the same tokens at today's prices.

Tokens and cache hits stay as they were; only offers that can be called now take part. Models
that nobody can serve now keep what was paid.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from billing.usage_sums import OfferUsage, used_by_offer
from gateway.models import RoutingPolicy
from providers import leaderboards

LOOKED_BACK: Final = timedelta(days=7)
WINDOW: Final = "7d"
Row = Mapping[str, Any]
Kind = RoutingPolicy.Kind


@dataclass(frozen=True, slots=True)
class ModelUse:
    """All that was used of one model, and the offers that sell it."""

    model: str
    requests: int
    uncached_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_pico: int
    rows: Sequence[Row]

    def at(self, row: Row) -> int:
        """What these tokens cost at an offer's list price."""
        listed = row["list"]
        return int(
            self.uncached_tokens * listed["input_pico"]
            + self.cached_tokens * listed["cached_pico"]
            + self.output_tokens * listed["output_pico"]
        )

    @property
    def callable_rows(self) -> list[Row]:
        return [row for row in self.rows if row["routable"] and row["list"]]


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
    return [_use(model, parts) for model, parts in by_model.items()]


def _use(model: str, parts: Iterable[OfferUsage]) -> ModelUse:
    used = list(parts)
    board = leaderboards.board(model, WINDOW)
    cached = sum(u.cache_read_tokens for u in used)
    return ModelUse(
        model=model,
        requests=sum(u.requests for u in used),
        uncached_tokens=sum(u.input_tokens for u in used) - cached,
        cached_tokens=cached,
        output_tokens=sum(u.output_tokens for u in used),
        cost_pico=sum(u.cost_pico for u in used),
        rows=() if board is None else board.rows,
    )


def savings(uses: Iterable[ModelUse]) -> list[Saving]:
    """For each model the cheapest offer elsewhere, where that is cheaper; greatest saving first."""
    found = []
    for use in uses:
        priced = [row for row in use.rows if row["list"]]
        if not priced:
            continue
        best = min(priced, key=use.at)
        saved = use.cost_pico - use.at(best)
        if saved > 0:
            needs = "" if best["routable"] else best["not_routable"]
            offer = f"{best['provider_name']} {best['variant']}".strip()
            found.append(Saving(use.model, offer, saved, needs, use.requests))
    return sorted(found, key=lambda s: (bool(s.needs), -s.saved_pico))


def effect(uses: Sequence[ModelUse], *, kind: str, pinned_skus: Sequence[str] = ()) -> Effect:
    paid = sum(use.cost_pico for use in uses)
    cost = sum(_cost_under(use, kind, pinned_skus) for use in uses)
    change = None if not paid else round((cost - paid) * 100 / paid, 1)
    return Effect(kind=kind, cost_pico=cost, change_percent=change)


def _cost_under(use: ModelUse, kind: str, pinned_skus: Sequence[str]) -> int:
    rows = use.callable_rows
    if kind == Kind.IN_HOUSE_FIRST:
        rows = [row for row in rows if row["kind"] != "external"] or rows
    if kind == Kind.PINNED:
        by_sku = {row["sku"]: row for row in rows}
        rows = [by_sku[sku] for sku in pinned_skus if sku in by_sku][:1]
    if kind == Kind.FASTEST:
        measured = [row for row in rows if row["output_tps"]]
        rows = [max(measured, key=lambda r: float(r["output_tps"]["p50"]))] if measured else rows
    return min((use.at(row) for row in rows), default=use.cost_pico)
