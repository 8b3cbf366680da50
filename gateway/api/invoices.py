"""Invoices, receipts and refund notes of a tenant as data: sums in cents' precision, usage exact to
a pico-dollar."""

from decimal import Decimal

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.corrections import adjustments
from billing.invoicing import receivables
from billing.models import AdjustmentNote, CreditNote, Invoice, InvoiceLine, Receipt, Refund
from gateway.api import pagination
from gateway.api.base import TenantView
from gateway.api.shapes import described
from gateway.api.shapes.answers import (
    AdjustmentAnswer,
    InvoiceAnswer,
    LineAnswer,
    NoteAnswer,
    ReceiptAnswer,
    RefundAnswer,
    WholeInvoiceAnswer,
)
from gateway.api.shapes.money_fields import usd_per_million_text, usd_text
from gateway.tenants.roles import Action


class InvoiceListView(TenantView):
    reads = Action.SEE_MONEY

    @extend_schema(
        operation_id="v1_tenants_invoices_list",
        responses=described.answer(list[InvoiceAnswer]),
        parameters=[pagination.PageSerializer],
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Issued invoices, newest first; void ones too, marked so."""
        issued = Invoice.objects.filter(tenant=self.access.tenant)
        page = pagination.read(request, issued.exclude(state=Invoice.State.DRAFT))
        left = receivables.open_of_each(page.rows)
        return page.answer([_invoice(each, left[each.pk].total_cents) for each in page.rows])


class InvoiceView(TenantView):
    reads = Action.SEE_MONEY

    @extend_schema(responses=described.answer(WholeInvoiceAnswer))
    def get(self, request: Request, tenant: str, number: str) -> Response:
        """One invoice with its lines and credit notes."""
        found = Invoice.objects.filter(tenant=self.access.tenant, number=number)
        invoice = found.exclude(state=Invoice.State.DRAFT).first()
        if invoice is None:
            raise Http404
        lines = invoice.lines.order_by("position")
        notes = invoice.credit_notes.order_by("pk")
        whole: WholeInvoiceAnswer = {
            **_invoice(invoice, receivables.open_cents(invoice)),
            "lines": [_line(line) for line in lines],
            "credit_notes": [_note(note) for note in notes],
        }
        return Response(whole)


class AdjustmentListView(TenantView):
    reads = Action.SEE_MONEY

    @extend_schema(
        operation_id="v1_tenants_adjustments_list",
        responses=described.answer(list[AdjustmentAnswer]),
        parameters=[pagination.PageSerializer],
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Corrections, rebates and service credits, newest first: each is a line of the next
        invoice. `charged_usd` is below zero where it was given back."""
        issued = AdjustmentNote.objects.filter(tenant=self.access.tenant).select_related("grant")
        page = pagination.read(request, issued)
        return page.answer([_adjustment(note) for note in page.rows])


def _adjustment(note: AdjustmentNote) -> AdjustmentAnswer:
    return {
        "number": note.number,
        "cause": note.cause,
        "reason": note.reason,
        "charged_usd": usd_text(note.charged_pico),
        "months": {
            f"{month:%Y-%m}": usd_text(-pico) for month, pico in adjustments.months_of(note).items()
        },
        "issued_at": note.issued_at.isoformat(),
    }


class ReceiptListView(TenantView):
    reads = Action.SEE_MONEY

    @extend_schema(
        operation_id="v1_tenants_receipts_list",
        responses=described.answer(list[ReceiptAnswer]),
        parameters=[pagination.PageSerializer],
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Receipts of bought credit, newest first, with what was refunded of each since."""
        issued = Receipt.objects.filter(topup__tenant=self.access.tenant).select_related("topup")
        page = pagination.read(request, issued)
        return page.answer([_receipt(receipt) for receipt in page.rows])


class RefundListView(TenantView):
    reads = Action.SEE_MONEY

    @extend_schema(
        operation_id="v1_tenants_refunds_list",
        responses=described.answer(list[RefundAnswer]),
        parameters=[pagination.PageSerializer],
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Refund notes of bought credit, newest first: what went back (negative: what came
        again, as a dispute was won), its tax, and for which receipt."""
        issued = Refund.objects.filter(topup__tenant=self.access.tenant)
        page = pagination.read(request, issued)
        return page.answer([_refund(refund) for refund in page.rows])


def _refund(refund: Refund) -> RefundAnswer:
    return {
        "number": refund.number,
        "cause": refund.cause,
        "receipt": refund.receipt or None,
        "issued_at": refund.issued_at.isoformat(),
        "payment_reference": refund.payment_reference,
        "currency": "USD",
        "net": _sum(refund.net_cents),
        "tax": _sum(refund.tax_cents),
        "total": _sum(refund.total_cents),
    }


def _receipt(receipt: Receipt) -> ReceiptAnswer:
    return {
        "number": receipt.number,
        "issued_at": receipt.issued_at.isoformat(),
        "payment_reference": receipt.payment_reference,
        "currency": "USD",
        "net": _sum(receipt.net_cents),
        "tax": _sum(receipt.tax_cents),
        "total": _sum(receipt.total_cents),
        "refunded": _sum(receipt.topup.refunded_cents),
    }


def _invoice(invoice: Invoice, open_cents: int) -> InvoiceAnswer:
    return {
        "number": invoice.number,
        "state": invoice.state,
        "period_start": invoice.period_start.isoformat(),
        "period_end": invoice.period_end.isoformat(),
        "time_zone": invoice.time_zone,
        "issued_at": invoice.issued_at.isoformat() if invoice.issued_at else None,
        "due_on": invoice.due_on.isoformat() if invoice.due_on else None,
        "currency": "USD",
        "usage_usd": usd_text(int(invoice.usage_pico)),
        "adjustments_usd": usd_text(int(invoice.adjusted_pico)),
        "subtotal": _sum(invoice.subtotal_cents),
        "covered_by_credit": _sum(invoice.covered_cents),
        "covered_untaxed": _sum(invoice.untaxed_cents),
        "tax": _sum(invoice.tax_cents),
        "total": _sum(invoice.total_cents),
        "open": _sum(open_cents),
    }


def _line(line: InvoiceLine) -> LineAnswer:
    return {
        "kind": line.kind,
        "model": line.model,
        "sku": line.sku,
        "price_version": line.price_version_id,
        "unit": line.unit,
        "quantity": line.quantity,
        "usd_per_million": usd_per_million_text(line.rate_pico),
        "exact_usd": usd_text(int(line.exact_pico)),
        "amount": _sum(line.amount_cents),
        "service_start": line.service_start.isoformat(),
        "service_end": line.service_end.isoformat(),
    }


def _note(note: CreditNote) -> NoteAnswer:
    return {
        "number": note.number,
        "reason": note.reason,
        "net": _sum(note.net_cents),
        "tax": _sum(note.tax_cents),
        "issued_at": note.issued_at.isoformat(),
    }


def _sum(cents: int) -> str:
    return f"{Decimal(cents).scaleb(-2):f}"
