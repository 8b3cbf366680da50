"""The list price of one sku as the market has it at a moment."""

from datetime import datetime

from billing.prices import versions as prices
from billing.rating import Price


def price_at(sku: str, when: datetime) -> tuple[Price, ...]:
    """Every tier; empty where the sku has no price then."""
    return prices.in_force(when).get(sku, ())
