"""When and why the prices of our own machines moved: for boards, and for who buys there."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from billing.prices import list_prices as price_queries
from billing.prices.list_prices import ListPrice
from providers.boards.shapes import MoveFigures
from providers.machines.in_house import RECORDED_BY
from providers.models import Offer, Provider


@dataclass(frozen=True, slots=True)
class Move:
    """The latest change of one list price; of the output price, which boards rank by."""

    at: datetime
    before_pico: int
    now_pico: int
    why: str

    @property
    def percent(self) -> float | None:
        """None where it was free before."""
        if not self.before_pico:
            return None
        return round((self.now_pico - self.before_pico) * 100 / self.before_pico, 1)

    @property
    def figures(self) -> MoveFigures:
        return MoveFigures(
            at=self.at.isoformat(),
            before_output_pico=self.before_pico,
            output_pico=self.now_pico,
            percent=self.percent,
            why=self.why,
        )


def latest(prices: Iterable[ListPrice]) -> dict[str, Move]:
    """What each of these prices changed, by sku; nothing where it is the first."""
    standing = list(prices)
    replaced = price_queries.before(standing) if standing else {}
    return {
        price.sku: _move(price, replaced[price.sku]) for price in standing if price.sku in replaced
    }


def _move(price: ListPrice, before: ListPrice) -> Move:
    why = price.note if price.recorded_by == RECORDED_BY else f"set by an operator {price.note}"
    return Move(price.since, before.output_pico, price.output_pico, why.strip())


def of_own(models: Collection[str], *, since: datetime, now: datetime) -> list[tuple[Offer, Move]]:
    """Own offers of these models whose price moved since, the newest move first."""
    own = Offer.objects.select_related("provider", "model").filter(
        provider__kind=Provider.Kind.IN_HOUSE, model__slug__in=models
    )
    by_sku = {offer.sku: offer for offer in own}
    moves = latest(price_queries.in_force(now, list(by_sku)).values())
    recent = [(by_sku[sku], move) for sku, move in moves.items() if move.at >= since]
    return sorted(recent, key=lambda pair: pair[1].at, reverse=True)
