"""What a tenant pays at each offer now: its own price list first, as its next call is charged.

Pages that hold one offer against another take both sides from here, so that a plan's margin or
discount is on both or on neither.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from billing import rating
from billing.kinds import ServiceTier
from billing.prices import plans, price_books
from billing.prices.price_spans import PriceBook
from billing.usage import CanonicalUsage, UsageError


@dataclass(frozen=True, slots=True)
class OwnPrices:
    """The prices of one tenant at one moment."""

    books: Mapping[str, PriceBook]
    lists: tuple[int, ...]
    now_ms: int

    def cost_pico(self, sku: str, usage: CanonicalUsage, *, requests: int) -> int | None:
        """So many requests' usage at the plain tier's lowest step; None where it has no rate."""
        book = self.books.get(sku)
        prices = () if book is None else book.at(self.lists, self.now_ms)
        plain = next(
            (p for p in prices if p.service_tier == ServiceTier.DEFAULT and not p.context_over),
            None,
        )
        if plain is None:
            return None
        try:
            return rating.rate(usage, plain) + (requests - 1) * plain.request_pico
        except UsageError:
            return None


def read(tenant_id: int, skus: Collection[str], *, now: datetime) -> OwnPrices:
    return OwnPrices(
        books=price_books.books(now, now, skus=skus),
        lists=plans.lists_of(tenant_id, now),
        now_ms=int(now.timestamp() * 1000),
    )
