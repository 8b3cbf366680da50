"""From covered charges to invoice lines: one per token class and price version, one per adjustment.

A charge is itemised where its tokens × rates are what the tenant paid; where it paid another sum
(cut at its hold, settled late, decided by a person) it goes into one line per price version. So
the exact sums of the lines are the exact sum of the charges, which is asserted.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection

from billing.errors import InvoiceRefused
from billing.invoicing import coverage
from billing.invoicing.coverage import COVERED_SQL
from billing.models import AdjustmentNote, Invoice, InvoiceLine
from billing.money import cents

Kind = InvoiceLine.Kind


class TokenClass(NamedTuple):
    """A billed leaf of usage: its name for people, its count, its rate's column."""

    unit: str
    count_sql: str
    rate: str


TOKEN_CLASSES: Final = (
    TokenClass(
        "input tokens",
        "u.input_tokens - u.cache_read_tokens - u.cache_write_5m_tokens - u.cache_write_1h_tokens"
        " - u.input_audio_tokens - u.input_image_tokens",
        "input_pico",
    ),
    TokenClass("cached input tokens", "u.cache_read_tokens", "cache_read_pico"),
    TokenClass("cache writes, 5 min", "u.cache_write_5m_tokens", "cache_write_5m_pico"),
    TokenClass("cache writes, 1 h", "u.cache_write_1h_tokens", "cache_write_1h_pico"),
    TokenClass("audio input tokens", "u.input_audio_tokens", "input_audio_pico"),
    TokenClass("image input tokens", "u.input_image_tokens", "input_image_pico"),
    TokenClass(
        "output tokens",
        "u.output_tokens - u.reasoning_tokens - u.output_audio_tokens",
        "output_pico",
    ),
    TokenClass("reasoning tokens", "u.reasoning_tokens", "reasoning_pico"),
    TokenClass("audio output tokens", "u.output_audio_tokens", "output_audio_pico"),
    TokenClass("requests", "1", "request_pico"),
)
COUNTS_SQL: Final = ", ".join(
    f"({leaf.count_sql})::numeric AS c{i}, coalesce(p.{leaf.rate}, 0)::numeric AS r{i}"
    for i, leaf in enumerate(TOKEN_CLASSES)
)
COST_SQL: Final = " + ".join(f"c{i} * r{i}" for i in range(len(TOKEN_CLASSES)))
SUMS_SQL: Final = ", ".join(f"sum(c{i}), max(r{i})" for i in range(len(TOKEN_CLASSES)))
GROUPED_SQL: Final = f"""
    WITH charge AS (
        SELECT u.model, u.sku, u.price_version_id, u.occurred_at, u.tenant_cost_pico,
            u.occurred_at < %(start)s AS late, {COUNTS_SQL}
        FROM {COVERED_SQL} LEFT JOIN billing_priceversion p ON p.id = u.price_version_id
        WHERE u.tenant_cost_pico <> 0
    )
    SELECT model, sku, price_version_id, late, itemised, count(*), sum(tenant_cost_pico),
        min(occurred_at), max(occurred_at), {SUMS_SQL}
    FROM (
        SELECT *, price_version_id IS NOT NULL AND tenant_cost_pico = {COST_SQL} AS itemised
        FROM charge
    ) charged
    GROUP BY model, sku, price_version_id, late, itemised
    ORDER BY late, model, sku, price_version_id, itemised DESC
"""
CHARGED_SQL: Final = f"SELECT coalesce(sum(u.tenant_cost_pico), 0) FROM {COVERED_SQL}"
FIRST_CLASS_COLUMN: Final = 9
TEAMS_SHOWN_MAX: Final = 200
BY_TEAM_SQL: Final = f"""
    SELECT u.team_id, count(DISTINCT u.request_id), sum(u.tenant_cost_pico)::text
    FROM {COVERED_SQL} WHERE u.tenant_cost_pico <> 0
    GROUP BY u.team_id ORDER BY sum(u.tenant_cost_pico) DESC, 1 LIMIT {TEAMS_SHOWN_MAX}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line before it has its place on an invoice."""

    kind: str
    model: str
    sku: str
    price_version_id: int | None
    unit: str
    quantity: int
    rate_pico: int | None
    exact_pico: int
    service_start: datetime
    service_end: datetime

    @property
    def is_adjustment(self) -> bool:
        return self.kind == Kind.ADJUSTMENT

    def as_row(self, invoice_id: int, position: int, amount_cents: int) -> InvoiceLine:
        return InvoiceLine(
            invoice_id=invoice_id,
            position=position,
            amount_cents=amount_cents,
            **{name: getattr(self, name) for name in self.__slots__},
        )


def lines_of(invoice: Invoice) -> list[Line]:
    """The lines of everything covered, ordered for a reader: this period's, then late ones."""
    covered: dict[str, int | datetime] = {"invoice": invoice.pk, "start": invoice.period_start}
    with connection.cursor() as cursor:
        cursor.execute(GROUPED_SQL, covered)
        groups = cursor.fetchall()
        cursor.execute(CHARGED_SQL, covered)
        charged = int(cursor.fetchone()[0])
    lines = [line for group in groups for line in _lines_of_group(group)]
    if sum(line.exact_pico for line in lines) != charged:
        raise InvoiceRefused(f"lines do not add up to the charges of {charged} pico-dollars")
    return lines + [_line_of_note(note) for note in coverage.notes_of(invoice)]


def teams_of(invoice: Invoice) -> list[tuple[int | None, int, str]]:
    """Team, requests and exact cost of everything covered, the dearest first."""
    with connection.cursor() as cursor:
        cursor.execute(BY_TEAM_SQL, {"invoice": invoice.pk})
        return list(cursor.fetchall())


def amounts_cents(lines: Iterable[Line]) -> list[int]:
    """The cents of each line: what the rounded sum of its sku grows by with it. So a sku is rounded
    once, however many prices it had, and its lines add up to that."""
    sums: dict[str, int] = defaultdict(int)
    amounts = []
    for line in lines:
        before = cents(sums[line.sku])
        sums[line.sku] += line.exact_pico
        amounts.append(cents(sums[line.sku]) - before)
    return amounts


def _line_of_note(note: AdjustmentNote) -> Line:
    return Line(
        kind=Kind.ADJUSTMENT,
        model=note.title,
        sku=note.number,
        price_version_id=None,
        unit=note.reason,
        quantity=1,
        rate_pico=None,
        exact_pico=note.charged_pico,
        service_start=note.issued_at,
        service_end=note.issued_at,
    )


def _lines_of_group(group: tuple[Any, ...]) -> Iterable[Line]:
    model, sku, version, late, itemised, events, paid, first, last = group[:FIRST_CLASS_COLUMN]
    shared: Mapping[str, Any] = {
        "model": model,
        "sku": sku,
        "price_version_id": version,
        "service_start": first,
        "service_end": last,
    }
    if not itemised:
        yield Line(
            kind=Kind.LATE if late else Kind.PARTIAL,
            unit="requests, charged in part",
            quantity=events,
            rate_pico=None,
            exact_pico=int(paid),
            **shared,
        )
        return
    for index, leaf in enumerate(TOKEN_CLASSES):
        column = FIRST_CLASS_COLUMN + 2 * index
        quantity, rate = int(group[column]), int(group[column + 1])
        if quantity and rate:
            yield Line(
                kind=Kind.LATE if late else Kind.USAGE,
                unit=leaf.unit,
                quantity=quantity,
                rate_pico=rate,
                exact_pico=quantity * rate,
                **shared,
            )
