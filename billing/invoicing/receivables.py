"""What is paid and credited on a finalised invoice, and what is still open."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from django.db import transaction
from django.db.models import Sum

from billing import audit
from billing.books.ledger import AccountKey, Code, Kind
from billing.credit import balances as credit
from billing.credit import tax
from billing.errors import InvoiceRefused
from billing.invoicing import numbers, untaxed
from billing.invoicing.documents import locked_finalised
from billing.models import CreditGrant, CreditNote, Invoice, NumberSeries, Payment, Transfer
from billing.money import PICO_PER_CENT, half_away


class Open(NamedTuple):
    """What is still to be paid, before tax and of tax."""

    net_cents: int
    tax_cents: int

    @property
    def total_cents(self) -> int:
        return self.net_cents + self.tax_cents


def open_of(invoice: Invoice) -> Open:
    """What neither was paid nor credited; what was credited beyond it is credit of the tenant."""
    return open_of_each([invoice])[invoice.pk]


def open_of_each(invoices: Sequence[Invoice]) -> dict[int, Open]:
    """The same of many at once."""
    left = {invoice.pk: Open(0, 0) for invoice in invoices}
    issued = [each for each in invoices if each.state == Invoice.State.FINALISED]
    notes = CreditNote.objects.filter(invoice__in=issued).values_list("invoice")
    credited = {
        invoice_id: (net or 0, tax or 0)
        for invoice_id, net, tax in notes.annotate(
            Sum("settled_net_cents"), Sum("settled_tax_cents")
        )
    }
    payments = Payment.objects.filter(invoice__in=issued).values_list("invoice")
    paid = {
        invoice_id: (int(net or 0) // PICO_PER_CENT, total)
        for invoice_id, total, net in payments.annotate(
            Sum("amount_cents"), Sum("grant__amount_pico")
        )
    }
    for invoice in issued:
        (net, tax), (paid_net, total) = (of.get(invoice.pk, (0, 0)) for of in (credited, paid))
        left[invoice.pk] = Open(
            max(0, invoice.net_cents - net - paid_net),
            max(0, invoice.tax_cents - tax - (total - paid_net)),
        )
    return left


def open_cents(invoice: Invoice) -> int:
    return open_of(invoice).total_cents


def record_payment(
    *,
    invoice_id: int,
    amount_cents: int,
    reference: str,
    received_on: date,
    created_by: str,
    now: datetime,
) -> Payment:
    """Book money received; the same reference again returns the first booking."""
    if not reference.strip() or amount_cents <= 0:
        raise InvoiceRefused("a payment needs an amount above zero and its reference")
    with transaction.atomic():
        invoice = locked_finalised(invoice_id)
        known = Payment.objects.filter(reference=reference).first()
        if known is not None:
            if (known.invoice_id, known.amount_cents) != (invoice.pk, amount_cents):
                raise InvoiceRefused(f"{reference} is booked already, with other facts")
            return known
        still_open = open_of(invoice)
        if amount_cents > still_open.total_cents:
            raise InvoiceRefused(
                f"{still_open.total_cents} cents are open: book the rest as credit of the tenant"
            )
        # In proportion to what is open, so that the last payment brings both to zero exactly.
        tax_cents = half_away(amount_cents * still_open.tax_cents, still_open.total_cents)
        audit.record(
            actor=created_by,
            action="invoice.pay",
            subject=str(invoice),
            tenant=invoice.tenant,
            after={"amount_cents": amount_cents, "reference": reference},
            now=now,
        )
        return Payment.objects.create(
            invoice=invoice,
            amount_cents=amount_cents,
            reference=reference,
            received_on=received_on,
            grant=_credit_paid(invoice, amount_cents - tax_cents, reference, created_by),
            transfer=_pay_tax(invoice, tax_cents, key=f"payment:{reference}"),
            created_by=created_by,
        )


def _credit_paid(
    invoice: Invoice, net_cents: int, reference: str, created_by: str
) -> CreditGrant | None:
    if not net_cents:
        return None
    return credit.grant(
        tenant=invoice.tenant,
        amount_pico=net_cents * PICO_PER_CENT,
        reason=f"{invoice.number} paid, {reference}",
        created_by=created_by,
        kind=CreditGrant.Kind.PAID,
    )


def _pay_tax(invoice: Invoice, tax_cents: int, *, key: str) -> Transfer | None:
    return tax.post(
        debit=AccountKey(Kind.CASH),
        credit=AccountKey(Kind.RECEIVABLE, invoice.tenant_id),
        tax_cents=tax_cents,
        code=Code.PAYMENT,
        key=key,
        tenant_id=invoice.tenant_id,
        memo=f"tax of {invoice.number}",
    )


def issue_credit_note(
    *, invoice_id: int, net_cents: int, reason: str, created_by: str, now: datetime
) -> CreditNote:
    """Credit part of an invoice, its tax in proportion: what is open is lessened, and what was paid
    is credit of the tenant again, tax included."""
    if not reason.strip() or net_cents <= 0:
        raise InvoiceRefused("a credit note needs an amount above zero and a reason")
    with transaction.atomic():
        invoice = locked_finalised(invoice_id)
        sums = invoice.credit_notes.aggregate(net=Sum("net_cents"), tax=Sum("tax_cents"))
        net_before, tax_before = sums["net"] or 0, sums["tax"] or 0
        if net_before + net_cents > invoice.subtotal_cents:
            left = invoice.subtotal_cents - net_before
            raise InvoiceRefused(f"{left} cents of {invoice.number} are left to credit")
        number = numbers.next_number(NumberSeries.Document.CREDIT_NOTE, now)
        note = CreditNote(
            invoice=invoice,
            number=number,
            reason=reason[:200],
            net_cents=net_cents,
            tax_cents=_tax_credited(invoice, net_before + net_cents) - tax_before,
            created_by=created_by,
            issued_at=now,
        )
        audit.record(
            actor=created_by,
            action="invoice.credit",
            subject=str(invoice),
            tenant=invoice.tenant,
            after={"credit_note": number, "net_cents": net_cents, "tax_cents": note.tax_cents},
            reason=reason,
            now=now,
        )
        _credit(note, _taxed(invoice, net_before + net_cents) - _taxed(invoice, net_before))
        note.save()
    return note


def _credit(note: CreditNote, taxed_cents: int) -> None:
    """Move a note's money: `taxed_cents` of it had borne tax. What of that was paid by now is
    credit before tax, for the tax on it is given back too."""
    still_open = open_of(note.invoice)
    note.settled_net_cents = min(note.net_cents, still_open.net_cents)
    note.settled_tax_cents = min(note.tax_cents, still_open.tax_cents)
    untaxed_cents = max(0, taxed_cents - note.settled_net_cents)
    note.grant = _grant(note, note.net_cents, CreditGrant.Kind.CREDIT_NOTE, untaxed_cents)
    paid_tax_cents = note.tax_cents - note.settled_tax_cents
    if paid_tax_cents:
        note.tax_grant = _grant(note, paid_tax_cents, CreditGrant.Kind.TAX, paid_tax_cents)
    note.transfer = _untax(note)


def _grant(note: CreditNote, amount_cents: int, kind: str, untaxed_cents: int) -> CreditGrant:
    grant = credit.grant(
        tenant=note.invoice.tenant,
        amount_pico=amount_cents * PICO_PER_CENT,
        reason=f"{note.number}: {note.reason}",
        created_by=note.created_by,
        kind=kind,
    )
    untaxed.mark(grant, untaxed_cents * PICO_PER_CENT)
    return grant


def _taxed(invoice: Invoice, net_cents: int) -> int:
    """What of a credited net sum had borne tax: credit that covered the rest had not."""
    return min(net_cents, invoice.taxable_cents)


def _tax_credited(invoice: Invoice, net_cents: int) -> int:
    if not invoice.taxable_cents:
        return 0
    return half_away(_taxed(invoice, net_cents) * invoice.tax_cents, invoice.taxable_cents)


def _untax(note: CreditNote) -> Transfer | None:
    """Tax that is not owed any more, because it was still open."""
    return tax.post(
        debit=AccountKey(Kind.TAX_PAYABLE),
        credit=AccountKey(Kind.RECEIVABLE, note.invoice.tenant_id),
        tax_cents=note.settled_tax_cents,
        code=Code.CREDIT_NOTE,
        key=f"credit-note:{note.number}",
        tenant_id=note.invoice.tenant_id,
        memo=f"{note.number} for {note.invoice.number}",
        corrects_id=note.invoice.transfer_id,
    )
