"""A provider's bill beside our books, by day and model, and why they differ.

A difference in money is split into its two causes exactly: other tokens, at what input and output
cost us on average, and another price, for their tokens. Beside it stands what we know to be
uncertain on that day: attempts whose end nobody saw, events in quarantine, counts that we
estimated. Nothing is changed by looking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from django.db import connection
from django.db.models import Sum

from billing.models import ProviderBill, ProviderBillRow
from billing.money import half_away

# Supplier costs of a day and model, whoever paid for them, from the rollups; a day is that of the
# request. Output's part of a cost is what it is of the price that the attempts were rated by. What
# is uncertain has an index of its own, whose condition this repeats.
BOOKED_SQL: Final = """
    SELECT day, model, sum(input), sum(output), sum(cost), sum(output_cost), sum(unknown),
        sum(quarantined), sum(estimated)
    FROM (
        SELECT d.day, d.model, d.input_tokens AS input, d.output_tokens AS output,
            d.supplier_cost_pico AS cost, coalesce(round(d.supplier_cost_pico * least(
                1, d.output_tokens * p.output_pico / nullif(d.cost_pico, 0)
            )), 0) AS output_cost, 0 AS unknown, 0 AS quarantined, 0 AS estimated
        FROM billing_usageday d LEFT JOIN billing_priceversion p ON p.id = d.price_version_id
        WHERE d.supplier = %(supplier)s AND d.day >= %(first)s AND d.day <= %(last)s
        UNION ALL
        SELECT u.day, u.model, 0, 0, 0, 0, (u.outcome = 'unknown')::int,
            (u.state = 'quarantined')::int, (u.usage_source IN ('estimated', 'counted'))::int
        FROM billing_usageevent u
        WHERE u.supplier = %(supplier)s AND u.day >= %(first)s AND u.day <= %(last)s
            AND (u.outcome = 'unknown' OR u.state = 'quarantined'
                OR u.usage_source IN ('estimated', 'counted'))
    ) booked GROUP BY day, model
"""
Cell = tuple[date, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What we have of one day and model."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: int = 0
    output_cost_pico: int = 0
    unknown: int = 0
    quarantined: int = 0
    estimated: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Billed:
    """What the bill's used rows have of one day and model."""

    input_tokens: int
    output_tokens: int
    cost_pico: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One day and model, theirs beside ours. Differences are theirs − ours."""

    day: date
    model: str
    ours: Booked
    their_input_tokens: int
    their_output_tokens: int
    their_cost_pico: int | None

    @property
    def their_tokens(self) -> int:
        return self.their_input_tokens + self.their_output_tokens

    @property
    def more_tokens(self) -> int:
        return self.their_tokens - self.ours.tokens

    @property
    def more_pico(self) -> int | None:
        return None if self.their_cost_pico is None else self.their_cost_pico - self.ours.cost_pico

    @property
    def by_tokens_pico(self) -> int | None:
        """The part of the difference that other token counts explain, at our average prices."""
        ours = self.ours
        if self.more_pico is None:
            return None
        if not ours.tokens:
            return self.more_pico if self.their_tokens else 0
        more_input = self.their_input_tokens - ours.input_tokens
        more_output = self.their_output_tokens - ours.output_tokens
        if not ours.input_tokens or not ours.output_tokens:
            return half_away((more_input + more_output) * ours.cost_pico, ours.tokens)
        input_cost_pico = ours.cost_pico - ours.output_cost_pico
        return half_away(more_input * input_cost_pico, ours.input_tokens) + half_away(
            more_output * ours.output_cost_pico, ours.output_tokens
        )

    @property
    def by_price_pico(self) -> int | None:
        if self.more_pico is None or self.by_tokens_pico is None:
            return None
        return self.more_pico - self.by_tokens_pico

    @property
    def reasons(self) -> list[str]:
        """What to look at, the likeliest first; empty where nothing differs."""
        if not self.more_tokens and not self.more_pico:
            return []
        found = []
        if not self.their_tokens and self.their_cost_pico:
            found.append("a sum without tokens: a fee, a tax, a credit or a commitment")
        elif not self.ours.tokens:
            found.append("nothing of it went through this gateway")
        elif not self.their_tokens and not self.their_cost_pico:
            found.append("the bill does not know it")
        if self.ours.unknown:
            found.append(f"{self.ours.unknown} attempts whose end nobody saw")
        if self.ours.quarantined:
            found.append(f"{self.ours.quarantined} events in quarantine")
        if self.ours.estimated:
            found.append(f"{self.ours.estimated} counts estimated by us")
        if self.more_pico and self.their_tokens and not self.more_tokens:
            found.append("same tokens, another price")
        return found or ["other token counts: another zone's days, or the drift of this provider"]


def compare(bill: ProviderBill) -> list[Comparison]:
    """Every day and model that either side knows, the greatest difference first."""
    ours = _booked(bill)
    theirs = _billed(bill)
    found = [_cell(cell, ours.get(cell), theirs.get(cell)) for cell in ours.keys() | theirs.keys()]
    return sorted(
        found, key=lambda c: (-abs(c.more_pico or 0), -abs(c.more_tokens), c.day, c.model)
    )


def days_of(bill: ProviderBill) -> dict[str, str | date]:
    return {"supplier": bill.supplier, "first": bill.first_day, "last": bill.last_day}


def _booked(bill: ProviderBill) -> dict[Cell, Booked]:
    with connection.cursor() as cursor:
        cursor.execute(BOOKED_SQL, days_of(bill))
        return {
            (day, model): Booked(
                input_tokens=int(inward),
                output_tokens=int(outward),
                cost_pico=int(cost),
                output_cost_pico=int(output_cost),
                unknown=unknown,
                quarantined=quarantined,
                estimated=estimated,
            )
            for (
                day,
                model,
                inward,
                outward,
                cost,
                output_cost,
                unknown,
                quarantined,
                estimated,
            ) in cursor
        }


def _billed(bill: ProviderBill) -> dict[Cell, Billed]:
    used = bill.rows.filter(state=ProviderBillRow.State.USED, day__isnull=False)
    summed = used.values_list("day", "model").annotate(
        inward=Sum("input_tokens"), outward=Sum("output_tokens"), cost=Sum("cost_pico")
    )
    return {
        (day, model): Billed(inward, outward, None if cost is None else int(cost))
        for day, model, inward, outward, cost in summed
        if day is not None
    }


def _cell(cell: Cell, ours: Booked | None, theirs: Billed | None) -> Comparison:
    theirs = theirs or Billed(0, 0, 0)
    return Comparison(
        day=cell[0],
        model=cell[1],
        ours=ours or Booked(),
        their_input_tokens=theirs.input_tokens,
        their_output_tokens=theirs.output_tokens,
        their_cost_pico=theirs.cost_pico,
    )


def difference_pico(comparisons: Sequence[Comparison], carried_pico: int) -> int | None:
    """What the bill asks beyond what we booked; None where it names no sums."""
    parts = [comparison.more_pico for comparison in comparisons]
    return None if None in parts else sum(part or 0 for part in parts) + carried_pico
