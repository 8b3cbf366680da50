"""What a sku costs at any moment of the near future, and on which price list. Pure.

Prices that begin, end or depend on the hour change at their moment, not when somebody loads them
again: a book holds the spans between such moments. So do the lists by which a tenant pays.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from billing import registers
from billing.rates import Window
from billing.rating import Price

LIST_PRICES: Final = 0
COST_PRICES: Final = -1
MINUTE: Final = timedelta(minutes=1)


class Dated(NamedTuple):
    """One version with the time in which it holds."""

    price: Price
    since: datetime
    until: datetime | None
    window: Window

    def holds_at(self, when: datetime) -> bool:
        return self.since <= when and (self.until is None or when < self.until)


class Span(NamedTuple):
    """The prices from a moment (milliseconds since the epoch) until the next span."""

    from_ms: int
    prices: tuple[Price, ...]


class ListSpan(NamedTuple):
    """The price lists of a tenant from a moment until the next span, the one that goes first
    first. The first span holds before its moment too."""

    from_ms: int
    lists: tuple[int, ...]


ListSpans = tuple[ListSpan, ...]


def lists_at(spans: ListSpans, now_ms: int) -> tuple[int, ...]:
    """The price lists that hold then; none means the list prices."""
    found: tuple[int, ...] = spans[0].lists if spans else ()
    for span in spans[1:]:
        if now_ms < span.from_ms:
            break
        found = span.lists
    return found


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One sku's spans by price list, with two that have no id: the list prices (0), and what
    the supplier charges us (-1). The last span of each is empty."""

    spans: Mapping[int, tuple[Span, ...]]

    @property
    def is_plain(self) -> bool:
        """Whether there is one list, and nothing that changes within the horizon."""
        return self.spans.keys() == {LIST_PRICES} and len(self.spans[LIST_PRICES]) == 2

    def opening(self) -> tuple[Price, ...]:
        """The list prices at the book's first moment."""
        spans = self.spans.get(LIST_PRICES)
        return spans[0].prices if spans else ()

    def at(self, lists: Sequence[int], now_ms: int) -> tuple[Price, ...]:
        """The prices then, of the first of these lists that has any, else the list prices.

        A clock behind the book's first moment gets what held at that moment; beyond its horizon
        nothing has a price.
        """
        for price_list in lists:
            if price_list in self.spans and (found := _at(self.spans[price_list], now_ms)):
                return found
        return _at(self.spans.get(LIST_PRICES, ()), now_ms)


def _at(spans: Sequence[Span], now_ms: int) -> tuple[Price, ...]:
    found: tuple[Price, ...] = spans[0].prices if spans else ()
    for span in spans[1:]:
        if now_ms < span.from_ms:
            break
        found = span.prices
    return found


def spans_of(rows: Sequence[Dated], since: datetime, until: datetime) -> list[Span]:
    """The spans of one list; what holds in some hours goes before what holds all day."""
    spans: list[Span] = []
    for moment in _moments(rows, since, until):
        prices = _in_force(rows, moment)
        if not spans or spans[-1].prices != prices:
            spans.append(Span(registers.moment_ms(moment), prices))
    spans.append(Span(registers.moment_ms(until) + 1, ()))
    return spans


def _moments(rows: Iterable[Dated], since: datetime, until: datetime) -> list[datetime]:
    """When what is in force can change."""
    moments = {since}
    for row in rows:
        moments.update(at for at in (row.since, row.until) if at is not None)
        if not row.window.is_all_day:
            moments.update(_edges(row.window, since, until))
    return sorted(moment for moment in moments if since <= moment <= until)


def _edges(window: Window, since: datetime, until: datetime) -> Iterable[datetime]:
    midnight = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while midnight <= until:
        for minute in window:
            yield midnight + minute * MINUTE
        midnight += timedelta(days=1)


def _in_force(rows: Iterable[Dated], when: datetime) -> tuple[Price, ...]:
    minute = minute_of(when)
    chosen: dict[tuple[int, int], Dated] = {}
    for row in rows:
        slot = (row.price.service_tier, row.price.context_over)
        if not row.holds_at(when) or not row.window.contains(minute):
            continue
        if slot not in chosen or chosen[slot].window.is_all_day:
            chosen[slot] = row
    return tuple(row.price for row in chosen.values())


def minute_of(when: datetime) -> int:
    """The minute of the UTC day."""
    moment = when.astimezone(UTC)
    return moment.hour * 60 + moment.minute
