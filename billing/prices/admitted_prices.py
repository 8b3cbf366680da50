"""What a request was priced at when it was admitted, read from the rows: for what is counted or
estimated afterwards, however late."""

from typing import NamedTuple

from billing import registers
from billing.models import UsageEvent
from billing.prices import plans, price_books
from billing.prices.price_spans import COST_PRICES
from billing.rating import Price


class AdmittedPrices(NamedTuple):
    """By the plan that the tenant was on then; empty where the sku had no price."""

    tenant: tuple[Price, ...]
    supplier: tuple[Price, ...]


def of(event: UsageEvent) -> AdmittedPrices:
    request_id = str(event.request_id)
    when, when_ms = registers.request_moment(request_id), registers.request_ms(request_id)
    book = price_books.books(when, when, skus=[event.sku]).get(event.sku)
    if book is None:
        return AdmittedPrices((), ())
    lists = plans.lists_of(event.tenant_id, when)
    return AdmittedPrices(book.at(lists, when_ms), book.at((COST_PRICES,), when_ms))
