"""Reads price books: every sku's versions, in one query, as spans of the near future."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import Final

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from billing.models import PriceList, PriceVersion
from billing.prices.price_spans import COST_PRICES, LIST_PRICES, Dated, PriceBook, spans_of
from billing.rates import Rates, Window
from billing.rating import Price

_FIELDS: Final = (
    "sku__code",
    "price_list_id",
    "during",
    "from_minute",
    "to_minute",
    "pk",
    "service_tier",
    "context_over",
    *Rates.__slots__,
)
_PRICE_FIELDS: Final = ("version", "service_tier", "context_over", *Rates.__slots__)


def books(
    since: datetime, until: datetime, *, skus: Collection[str] | None = None
) -> dict[str, PriceBook]:
    """The book of every sku with a price at some moment from `since` to `until`."""
    rows = PriceVersion.objects.filter(during__overlap=DateTimeTZRange(since, until, "[]"))
    if skus is not None:
        rows = rows.filter(sku__code__in=skus)
    ordered = rows.order_by("sku_id", "service_tier", "context_over", "from_minute")
    found: dict[str, dict[int, list[Dated]]] = defaultdict(lambda: defaultdict(list))
    cost = PriceList.objects.filter(kind=PriceList.Kind.COST).values_list("pk", flat=True).first()
    for sku, price_list, during, from_minute, to_minute, *facts in ordered.values_list(*_FIELDS):
        price = Price(sku=sku, **dict(zip(_PRICE_FIELDS, facts, strict=True)))
        dated = Dated(price, during.lower, during.upper, Window(from_minute, to_minute))
        key = COST_PRICES if price_list and price_list == cost else price_list or LIST_PRICES
        found[sku][key].append(dated)
    return {
        sku: PriceBook({pk: tuple(spans_of(rows, since, until)) for pk, rows in lists.items()})
        for sku, lists in found.items()
    }
