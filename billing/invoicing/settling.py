"""What is paid and credited on a finalised invoice, and what is still open."""

from datetime import date, datetime

from django.db import transaction
from django.db.models import Sum

from billing import audit, credit, tax
from billing.errors import InvoiceRefused
from billing.invoicing import numbers
from billing.invoicing.documents import locked_finalised
from billing.ledger import AccountKey, Code, Kind
from billing.models import CreditGrant, CreditNote, Invoice, NumberSeries, Payment, Transfer
from billing.money import PICO_PER_CENT, half_away


def open_cents(invoice: Invoice) -> int:
    """What is still to be paid; what was credited beyond it is credit of the tenant by now."""
    if invoice.state != Invoice.State.FINALISED:
        return 0
    return max(0, invoice.total_cents - _credited(invoice) - _paid(invoice))


def _credited(invoice: Invoice) -> int:
    sums = invoice.credit_notes.aggregate(net=Sum("net_cents"), tax=Sum("tax_cents"))
    return (sums["net"] or 0) + (sums["tax"] or 0)


def _paid(invoice: Invoice) -> int:
    return invoice.payments.aggregate(total=Sum("amount_cents"))["total"] or 0


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
        still_open = open_cents(invoice)
        if amount_cents > still_open:
            raise InvoiceRefused(
                f"{still_open} cents are open: book the rest as credit of the tenant"
            )
        tax_cents = _tax_part(invoice, amount_cents)
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


def _tax_part(invoice: Invoice, amount_cents: int) -> int:
    """Tax in proportion, so that the last payment brings tax and net to their sums exactly."""
    before = _credited(invoice) + _paid(invoice)
    return tax.part_cents(
        before=before,
        after=before + amount_cents,
        tax_cents=invoice.tax_cents,
        total_cents=invoice.total_cents,
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
    """Credit part of an invoice: the tenant's credit grows by it, and its tax is taken back."""
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
        tax_cents = _tax_credited(invoice, net_before + net_cents) - tax_before
        audit.record(
            actor=created_by,
            action="invoice.credit",
            subject=str(invoice),
            tenant=invoice.tenant,
            after={"credit_note": number, "net_cents": net_cents, "tax_cents": tax_cents},
            reason=reason,
            now=now,
        )
        return CreditNote.objects.create(
            invoice=invoice,
            number=number,
            reason=reason[:200],
            net_cents=net_cents,
            tax_cents=tax_cents,
            grant=credit.grant(
                tenant=invoice.tenant,
                amount_pico=net_cents * PICO_PER_CENT,
                reason=f"{number}: {reason}",
                created_by=created_by,
                kind=CreditGrant.Kind.CREDIT_NOTE,
            ),
            transfer=_untax(invoice, tax_cents, number),
            created_by=created_by,
            issued_at=now,
        )


def _tax_credited(invoice: Invoice, net_cents: int) -> int:
    """Tax that belongs to a credited net sum; credit that had covered the usage bore none."""
    if not invoice.net_cents:
        return 0
    taxed = min(net_cents, invoice.net_cents)
    return half_away(taxed * invoice.tax_cents, invoice.net_cents)


def _untax(invoice: Invoice, tax_cents: int, number: str) -> Transfer | None:
    return tax.post(
        debit=AccountKey(Kind.TAX_PAYABLE),
        credit=AccountKey(Kind.RECEIVABLE, invoice.tenant_id),
        tax_cents=tax_cents,
        code=Code.CREDIT_NOTE,
        key=f"credit-note:{number}",
        tenant_id=invoice.tenant_id,
        memo=f"{number} for {invoice.number}",
        corrects_id=invoice.transfer_id,
    )
