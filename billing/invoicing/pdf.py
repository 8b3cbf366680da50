"""Invoices, credit notes, receipts and refund notes as PDF/A, the same bytes for the same document.

The look is in `invoice.typ`; here are only the words and figures that go into it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypedDict

import msgspec
import typst

from billing.errors import InvoiceRefused
from billing.invoicing import lines
from billing.models import AdjustmentNote, CreditNote, Invoice, InvoiceLine, Receipt, Refund
from billing.money import usd_json, usd_per_million

TEMPLATE: Final = Path(__file__).with_name("invoice.typ")
STANDARD: Final = "a-3b"
RATE_LABEL: Final = "USD per million"
Pair = tuple[str, str]


class PrintedRow(TypedDict):
    what: str
    quantity: str
    rate: str
    amount: str


class Group(TypedDict):
    title: str
    detail: str
    rows: list[PrintedRow]


class Document(TypedDict):
    """What the template prints; `facts` stand under the title."""

    title: str
    state: str
    facts: Sequence[tuple[str, str | None]]
    rate_label: str
    lines: list[Group]
    sums: list[Pair]
    total: Pair
    notes: list[str]
    teams: Sequence[tuple[str, str, str]]


class PrintedDate(TypedDict):
    year: int
    month: int
    day: int


class PrintedDocument(Document):
    seller: dict[str, str]
    buyer: dict[str, str]
    issued: PrintedDate


def of_an_invoice(invoice: Invoice, *, team_names: Mapping[int, str]) -> bytes:
    """The PDF of an invoice in any state; a draft or a void one says so across the page."""
    parties = invoice.parties or {"seller": {}, "buyer": {"legal_name": invoice.tenant.name}}
    issued = invoice.issued_at or invoice.created_at
    is_draft = invoice.state == Invoice.State.DRAFT
    facts: Document = {
        "title": f"Invoice {invoice.number}" if invoice.number else "Invoice, draft",
        "state": "" if invoice.state == Invoice.State.FINALISED else invoice.state,
        "facts": _heading(invoice, issued, parties["buyer"].get("reference", "")),
        "rate_label": RATE_LABEL,
        "lines": list(_groups(invoice.lines.all())),
        "sums": _sums(invoice, parties["buyer"].get("tax_name", "")),
        "total": ("Total due", dollars(invoice.total_cents)),
        "notes": _notes(invoice, parties),
        "teams": [] if is_draft else _teams(invoice, team_names),
    }
    return _compile(facts, parties, issued)


def of_a_credit_note(note: CreditNote) -> bytes:
    invoice = note.invoice
    parties = invoice.parties
    row: PrintedRow = {
        "what": note.reason,
        "quantity": "",
        "rate": "",
        "amount": dollars(-note.net_cents),
    }
    sums = [("Subtotal", dollars(-note.net_cents))]
    if note.tax_cents:
        sums.append(
            (_tax_label(invoice.tax_ppm, parties["buyer"]["tax_name"]), dollars(-note.tax_cents))
        )
    facts: Document = {
        "title": f"Credit note {note.number}",
        "state": "",
        "facts": [
            ("Issued", f"{note.issued_at:%-d %B %Y}"),
            ("For invoice", invoice.number),
        ],
        "rate_label": "",
        "lines": [{"title": "Credit", "detail": "", "rows": [row]}],
        "sums": sums,
        "total": ("Total credited", dollars(-note.total_cents)),
        "notes": [_credited(note)],
        "teams": [],
    }
    return _compile(facts, parties, note.issued_at)


def _credited(note: CreditNote) -> str:
    if note.tax_grant is None:
        return "The net sum was added to your credit."
    back = note.net_cents + note.tax_cents - note.settled_tax_cents
    return f"{dollars(back)} was added to your credit: the net sum, and the tax that was paid."


def of_an_adjustment(note: AdjustmentNote) -> bytes:
    """What was given back or charged more, exactly; it is taxed as a line of the next invoice."""
    exact = f"${usd_json(abs(note.charged_pico)).decode()}"
    row: PrintedRow = {"what": note.reason, "quantity": "", "rate": "", "amount": exact}
    facts: Document = {
        "title": f"Adjustment {note.number}",
        "state": "",
        "facts": [("Issued", f"{note.issued_at:%-d %B %Y}"), ("Currency", "USD")],
        "rate_label": "",
        "lines": [{"title": note.title, "detail": "", "rows": [row]}],
        "sums": [],
        "total": ("Charged" if note.charged_pico > 0 else "Given back", exact),
        "notes": ["It is a line of your next invoice, where it is rounded and taxed."],
        "teams": [],
    }
    return _compile(facts, note.parties, note.issued_at)


def of_a_receipt(receipt: Receipt) -> bytes:
    heading = [
        ("Paid", f"{receipt.issued_at:%-d %B %Y}"),
        ("Currency", "USD"),
        ("Payment", receipt.payment_reference),
    ]
    return _of_purchase(
        receipt, f"Receipt {receipt.number}", heading, "Prepaid credit", "Total paid"
    )


def of_a_refund(refund: Refund) -> bytes:
    heading = [
        (refund.get_cause_display().capitalize(), f"{refund.issued_at:%-d %B %Y}"),
        ("Currency", "USD"),
        ("Payment", refund.payment_reference),
    ]
    if refund.receipt:
        heading.append(("For receipt", refund.receipt))
    was, title = "taken", "Refund"
    if refund.cause == Refund.Cause.DISPUTE_WON:
        was, title = "given", "Refund, reversed,"
    what = f"Prepaid credit, {was} back"
    total = f"Total {was} back" if refund.cause != Refund.Cause.REFUND else "Total refunded"
    return _of_purchase(refund, f"{title} {refund.number}", heading, what, total, sign=-1)


def _of_purchase(
    document: Receipt | Refund,
    title: str,
    heading: list[Pair],
    what: str,
    total: str,
    *,
    sign: int = 1,
) -> bytes:
    """What was bought, or given back, is one line: credit."""
    parties = document.parties
    net = dollars(sign * document.net_cents)
    sums = [("Subtotal", net)]
    if document.tax_cents:
        label = _tax_label(document.tax_ppm, parties["buyer"].get("tax_name", ""))
        sums.append((label, dollars(sign * document.tax_cents)))
    note = parties["buyer"].get("tax_note")
    row: PrintedRow = {"what": what, "quantity": "", "rate": "", "amount": net}
    facts: Document = {
        "title": title,
        "state": "",
        "facts": heading,
        "rate_label": "",
        "lines": [{"title": "Credit", "detail": "", "rows": [row]}],
        "sums": sums,
        "total": (total, dollars(sign * document.total_cents)),
        "notes": [note] if note else [],
        "teams": [],
    }
    return _compile(facts, parties, document.issued_at)


def _compile(document: Document, parties: Mapping[str, Any], issued: datetime) -> bytes:
    facts: PrintedDocument = {
        **document,
        "seller": _party(parties["seller"]),
        "buyer": _party(parties["buyer"]),
        "issued": {"year": issued.year, "month": issued.month, "day": issued.day},
    }
    try:
        return _print(facts, issued, own_fonts_only=True)
    except typst.TypstError:
        # PDF/A refuses a letter that no font has: the machine's own fonts may have it.
        return _print_with_any_font(facts, issued)


def _print_with_any_font(facts: PrintedDocument, issued: datetime) -> bytes:
    try:
        return _print(facts, issued, own_fonts_only=False)
    except typst.TypstError as problem:
        raise InvoiceRefused(
            f"it cannot be printed: {problem}. Install a font on the server that has these "
            "letters, for example Noto."
        ) from problem


def _print(facts: PrintedDocument, issued: datetime, *, own_fonts_only: bool) -> bytes:
    made = typst.compile(
        str(TEMPLATE),
        format="pdf",
        ignore_system_fonts=own_fonts_only,
        sys_inputs={"facts": msgspec.json.encode(facts).decode()},
        pdf_standards=STANDARD,
        timestamp=int(issued.timestamp()),
    )
    assert isinstance(made, bytes)
    return made


def dollars(cents: int) -> str:
    """Whole cents for a printed document: -123456 is "-$1,234.56"."""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}${whole:,}.{rest:02d}"


def _party(who: Mapping[str, str]) -> dict[str, str]:
    return {
        "name": who.get("legal_name", ""),
        "address": who.get("address", ""),
        "country": who.get("country", ""),
        "tax_id": f"Tax ID {who['tax_id']}" if who.get("tax_id") else "",
        "contact": who.get("email", ""),
    }


def _heading(invoice: Invoice, issued: datetime, reference: str) -> list[Pair]:
    rows = [("Issued", f"{issued:%-d %B %Y}")]
    if invoice.due_on:
        rows.append(("Due", f"{invoice.due_on:%-d %B %Y}"))
    rows += [
        ("Period", _days(invoice)),
        ("Currency", "USD"),
    ]
    if reference:
        rows.append(("Your reference", reference))
    return rows


def _days(invoice: Invoice) -> str:
    """First and last day on the calendar that the tenant had then."""
    return f"{invoice.first_day:%-d %b} to {invoice.last_day:%-d %b %Y}"


def _groups(lines: Iterable[InvoiceLine]) -> Iterable[Group]:
    """Lines of one price version under one heading."""
    ordered = sorted(lines, key=lambda line: line.position)
    for (model, sku, version, kind), rows in groupby(
        ordered, key=lambda line: (line.model, line.sku, line.price_version_id, line.kind)
    ):
        members = list(rows)
        detail = [sku] if version is None else [sku, f"price version {version}"]
        if kind == InvoiceLine.Kind.LATE:
            detail.append(f"from an earlier period, until {members[0].service_end:%-d %b %Y}")
        yield {
            "title": model,
            "detail": " · ".join(detail),
            "rows": [_row(line) for line in members],
        }


def _row(line: InvoiceLine) -> PrintedRow:
    rate = "" if line.rate_pico is None else usd_per_million(line.rate_pico)
    return {
        "what": line.unit,
        "quantity": f"{line.quantity:,}",
        "rate": rate,
        "amount": dollars(line.amount_cents),
    }


def _sums(invoice: Invoice, tax_name: str) -> list[Pair]:
    rows = [("Subtotal", dollars(invoice.subtotal_cents))]
    if invoice.covered_cents:
        covered = invoice.covered_cents > 0
        label = "Covered by your credit" if covered else "Carried over to your credit"
        rows.append((label, dollars(-invoice.covered_cents)))
    if invoice.tax_ppm:
        rows.append((_tax_label(invoice.tax_ppm, tax_name), dollars(invoice.tax_cents)))
    return rows


def _tax_label(tax_ppm: int | None, tax_name: str) -> str:
    if tax_ppm is None:
        return tax_name or "Tax"
    percent = f"{Decimal(tax_ppm).scaleb(-4).normalize():f}"
    return f"{tax_name or 'Tax'} {percent} %"


def _notes(invoice: Invoice, parties: Mapping[str, Any]) -> list[str]:
    notes = []
    if parties["buyer"].get("tax_note"):
        notes.append(parties["buyer"]["tax_note"])
    exact = usd_json(int(invoice.usage_pico)).decode()
    notes.append(
        f"Usage was ${exact} exactly; the sum of each sku is rounded once, to whole cents."
    )
    if invoice.untaxed_cents:
        notes.append(
            f"Tax is also on {dollars(invoice.untaxed_cents)} that was covered by credit"
            " which had borne none."
        )
    if invoice.total_cents and parties["seller"].get("payment"):
        notes.append(parties["seller"]["payment"])
    if invoice.replaces is not None:
        notes.append(f"Replaces {invoice.replaces.number}, which is void.")
    return notes


def _teams(invoice: Invoice, names: Mapping[int, str]) -> Sequence[tuple[str, str, str]]:
    rows = lines.teams_of(invoice) if invoice.teams is None else invoice.teams
    if [team for team, _, _ in rows] == [None]:
        return []
    return [
        (
            "no team" if team is None else names.get(team, f"team {team}"),
            f"{requests:,}",
            usd_json(int(cost)).decode(),
        )
        for team, requests, cost in rows
    ]
