"""The life of an invoice: drafted, finalised, then paid, credited or voided.

Money: usage was posted when it was drained. Finalising posts only what is new, the tax that is
now owed and the fraction of a cent that rounding leaves, so that paying the printed sum brings the
tenant's account to exactly where prepaid credit would have left it.
"""

from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, Sum

from billing import audit
from billing.books.ledger import AccountKey, Code, Kind
from billing.credit import balances as credit
from billing.credit import tax
from billing.errors import InvoiceRefused
from billing.invoicing import coverage as coverages
from billing.invoicing import lines, numbers, untaxed
from billing.invoicing.calendar_months import Period
from billing.models import (
    BillingProfile,
    CreditGrant,
    Invoice,
    InvoiceLine,
    NumberSeries,
    Tenant,
    Transfer,
)
from billing.money import PICO_PER_CENT, cents, half_away
from billing.rates import PPM

State = Invoice.State
# Charges that are posted late still reach the month they belong to, while it is a draft.
GRACE: Final = timedelta(hours=24)
TAX_TERMS: Final = ("tax_ppm", "tax_id", "is_reverse_charge", "tax_note")
REVERSE_CHARGE: Final = "Reverse charge: the recipient is liable for the tax."


def draft(*, tenant: Tenant, period: Period, created_by: str, now: datetime) -> Invoice:
    """Make the draft of a period, or make it again from what is posted by now. Drafts of later
    periods are made again after it, from what it leaves."""
    if period.end > now:
        raise InvoiceRefused("the period has not ended")
    upto = coverages.last_transfer(tenant)
    with transaction.atomic():
        tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)
        invoice = draft_of(tenant, period)
        issued = issued_beyond(tenant, period)
        if issued is not None and (invoice is None or invoice.replaces_id is None):
            raise InvoiceRefused(f"{issued.number} covers this period already")
        invoice = invoice or Invoice(tenant=tenant, created_by=created_by)
        if invoice.replaces_id is None:
            invoice.period_start, invoice.period_end = period
            invoice.time_zone = tenant.time_zone
            _stretch(invoice, upto)
        else:
            _fill(invoice)
    return invoice


def draft_of(tenant: Tenant, period: Period) -> Invoice | None:
    """The draft of that month, though it may have been made on the calendar of another zone."""
    drafts = Invoice.objects.filter(tenant=tenant, state=State.DRAFT)
    return drafts.filter(period_start__lte=period.middle, period_end__gt=period.middle).first()


def issued_beyond(tenant: Tenant, period: Period) -> Invoice | None:
    """An issued invoice of that month, or of a later one: it covers all of before its end."""
    issued = Invoice.objects.filter(tenant=tenant, state=State.FINALISED)
    return issued.filter(period_end__gt=period.middle).order_by("period_end").first()


def is_known(tenant: Tenant, period: Period) -> bool:
    return draft_of(tenant, period) is not None or issued_beyond(tenant, period) is not None


def _stretch(invoice: Invoice, upto: int) -> None:
    """Let a draft, and then those of later periods, cover what is posted up to this transfer."""
    drafts = Invoice.objects.filter(
        tenant=invoice.tenant_id, state=State.DRAFT, replaces=None
    ).exclude(pk=invoice.pk)
    later = list(drafts.filter(period_end__gt=invoice.period_end).order_by("period_end"))
    for one in later:
        coverages.give_back(one)
    for one in (invoice, *later):
        one.upto_transfer = upto
        one.save()
        coverages.cover(one)
        _fill(one)


def _fill(invoice: Invoice) -> None:
    """Write a draft's lines and sums from what it covers."""
    InvoiceLine.objects.filter(invoice=invoice).delete()
    made = lines.lines_of(invoice)
    amounts = lines.amounts_cents(made)
    InvoiceLine.objects.bulk_create(
        line.as_row(invoice.pk, position, amount)
        for position, (line, amount) in enumerate(zip(made, amounts, strict=True), start=1)
    )
    invoice.adjusted_pico = sum(line.exact_pico for line in made if line.is_adjustment)
    invoice.usage_pico = sum(line.exact_pico for line in made) - invoice.adjusted_pico
    invoice.teams = lines.teams_of(invoice)
    invoice.subtotal_cents = sum(amounts)
    _let_credit_cover(invoice)
    profile = BillingProfile.objects.filter(tenant=invoice.tenant_id).first()
    invoice.tax_ppm = profile.tax_ppm if profile else 0
    invoice.tax_cents = half_away(invoice.taxable_cents * invoice.tax_ppm, PPM)
    invoice.save()


def _let_credit_cover(invoice: Invoice) -> None:
    """Credit that has borne its tax, or is a gift, covers first. What is below zero is carried
    over as credit, which it is in the ledger already."""
    before, untaxed_before = _credit_before(invoice)
    charged = invoice.charged_pico
    covered = min(charged, max(0, before)) if charged > 0 else charged
    beyond_taxed = covered - (before - untaxed_before)
    invoice.covered_pico = covered
    invoice.untaxed_pico = min(max(0, covered), max(0, untaxed_before), max(0, beyond_taxed))
    # What credit covers whole leaves nothing due, not the cents that rounding lines made.
    invoice.covered_cents = invoice.subtotal_cents if covered == charged else cents(covered)
    invoice.untaxed_cents = min(cents(int(invoice.untaxed_pico)), max(0, invoice.covered_cents))


def _credit_before(invoice: Invoice) -> tuple[int, int]:
    """Credit that was there for this invoice's charges: granted, less what earlier ones took; and
    what of it has borne no tax. Adjustment notes are lines of invoices, so they are no credit here.
    """
    upto = invoice.upto_transfer
    granted = CreditGrant.objects.filter(
        tenant=invoice.tenant_id, transfer_id__lte=upto, adjustment_note=None
    ).aggregate(total=Sum("amount_pico"))["total"]
    untaxed_pico = untaxed.granted_pico(invoice.tenant_id, upto_transfer=upto)
    taken = Invoice.objects.filter(
        tenant=invoice.tenant_id, period_end__lt=invoice.period_end, state=State.FINALISED
    ).aggregate(total=Sum(F("usage_pico") + F("adjusted_pico")), untaxed=Sum("untaxed_pico"))
    return (
        int(granted or 0) - int(taken["total"] or 0),
        untaxed_pico - int(taken["untaxed"] or 0),
    )


def finalise(*, invoice_id: int, seller: dict[str, str], actor: str, now: datetime) -> Invoice:
    """Number a draft and freeze it; post its tax and rounding."""
    with transaction.atomic():
        invoice = _locked(invoice_id)
        _require(invoice, State.DRAFT)
        profile = BillingProfile.objects.filter(tenant=invoice.tenant_id).first()
        if profile is None:
            raise InvoiceRefused("the tenant has no billing profile: enter its name and address")
        wrong = tax.refusal(**{name: getattr(profile, name) for name in TAX_TERMS})
        if wrong:
            raise InvoiceRefused(wrong)
        earlier = Invoice.objects.filter(
            tenant=invoice.tenant_id, period_end__lt=invoice.period_end, state=State.DRAFT
        ).first()
        if earlier is not None:
            raise InvoiceRefused("an earlier period is still a draft: finalise that one first")
        _fill(invoice)
        invoice.number = numbers.next_number(NumberSeries.Document.INVOICE, now)
        invoice.issued_at = now
        invoice.due_on = (now + timedelta(days=profile.terms_days)).date()
        invoice.parties = {"seller": seller, "buyer": buyer_of(profile)}
        invoice.transfer = _post_tax(invoice, invoice.tax_cents, key=f"invoice:{invoice.number}")
        invoice.state = State.FINALISED
        invoice.save()
        _grant_rounding(invoice, _rounding_pico(invoice))
        audit.record(
            actor=actor,
            action="invoice.finalise",
            subject=str(invoice),
            tenant=invoice.tenant,
            after={"total_cents": invoice.total_cents},
            now=now,
        )
    return invoice


def buyer_of(profile: BillingProfile) -> dict[str, str]:
    """Whom a document is addressed to, as it is frozen in it."""
    names = ("legal_name", "address", "country", "email", "tax_id", "tax_name", "reference")
    notes = [REVERSE_CHARGE] if profile.is_reverse_charge else []
    notes += [profile.tax_note] if profile.tax_note else []
    return {name: getattr(profile, name) for name in names} | {"tax_note": " ".join(notes)}


def _post_tax(
    invoice: Invoice, tax_cents: int, *, key: str, corrects: Transfer | None = None
) -> Transfer | None:
    return tax.post(
        debit=AccountKey(Kind.RECEIVABLE, invoice.tenant_id),
        credit=AccountKey(Kind.TAX_PAYABLE),
        tax_cents=tax_cents,
        code=Code.INVOICE,
        key=key,
        tenant_id=invoice.tenant_id,
        memo=f"tax of {invoice.number}",
        corrects_id=corrects.pk if corrects else None,
    )


def _rounding_pico(invoice: Invoice) -> int:
    """What the tenant is let off by rounding; negative where it pays a fraction more."""
    due = invoice.charged_pico - int(invoice.covered_pico)
    return due - invoice.net_cents * PICO_PER_CENT


def _grant_rounding(invoice: Invoice, amount_pico: int) -> None:
    if amount_pico:
        credit.grant(
            tenant=invoice.tenant,
            amount_pico=amount_pico,
            reason=f"rounding of {invoice.number}",
            created_by="invoicing",
            kind=CreditGrant.Kind.ROUNDING,
        )


def void(*, invoice_id: int, reason: str, voided_by: str, now: datetime) -> Invoice:
    """Take a finalised invoice back; returns the draft that takes its place.

    Refused once it was paid or credited in part: then it is corrected by a credit note.
    """
    if not reason.strip():
        raise InvoiceRefused("voiding needs a reason")
    with transaction.atomic():
        invoice = locked_finalised(invoice_id)
        if invoice.payments.exists() or invoice.credit_notes.exists():
            raise InvoiceRefused("paid or credited in part: correct it by a credit note")
        key = f"invoice:{invoice.number}:void"
        _post_tax(invoice, -invoice.tax_cents, key=key, corrects=invoice.transfer)
        _grant_rounding(invoice, -_rounding_pico(invoice))
        invoice.state = State.VOID
        invoice.void_reason = f"{voided_by}: {reason}"[:200]
        invoice.save(update_fields=["state", "void_reason"])
        successor = Invoice.objects.create(
            tenant=invoice.tenant,
            period_start=invoice.period_start,
            period_end=invoice.period_end,
            time_zone=invoice.time_zone,
            upto_transfer=invoice.upto_transfer,
            replaces=invoice,
            created_by=voided_by,
        )
        coverages.hand_over(invoice, successor)
        _fill(successor)
        audit.record(
            actor=voided_by,
            action="invoice.void",
            subject=str(invoice),
            tenant=invoice.tenant,
            before={"total_cents": invoice.total_cents},
            reason=reason,
            now=now,
        )
    return successor


def _locked(invoice_id: int) -> Invoice:
    """The invoice under its tenant's lock, which all documents of a tenant take."""
    tenant_id = Invoice.objects.values_list("tenant_id", flat=True).filter(pk=invoice_id).first()
    if tenant_id is None:
        raise InvoiceRefused("no such invoice")
    Tenant.objects.select_for_update().get(pk=tenant_id)
    return Invoice.objects.select_related("tenant", "transfer").get(pk=invoice_id)


def locked_finalised(invoice_id: int) -> Invoice:
    invoice = _locked(invoice_id)
    _require(invoice, State.FINALISED)
    return invoice


def _require(invoice: Invoice, state: str) -> None:
    if invoice.state != state:
        raise InvoiceRefused(f"the invoice is {invoice.state}, not {state}")
