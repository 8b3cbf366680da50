"""A tenant's billing: credit, purchases, invoices. For its owners and admins, and the house."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing.credit import balances as credit
from billing.errors import InvoiceRefused
from billing.invoicing import focus, pdf, receivables
from billing.models import AdjustmentNote, CreditNote, Invoice, Receipt, Recharge, Refund, TopUp
from billing.money import usd
from billing.prices import plans
from gateway.console.access import tenant_page
from gateway.console.billing_forms import RechargeForm, TopUpForm, recharge_terms
from gateway.console.budgets import rows as budget_rows
from gateway.console.page_frame import month_asked, render_page
from gateway.console.spreadsheet import csv_response
from gateway.models import Member, Team
from gateway.payments import processor
from gateway.tenants import chargeback
from gateway.tenants.roles import ALLOWED, Action, require

# Of each kind of document; the others are a link away.
SHOWN_MAX: Final = 24
DIGITS_MAX: Final = 18
Document = TypeVar("Document", bound=Model)
CHARGEBACK_HEAD: Final = (
    "month", "cost_centre", "team", "model", "requests", "input_tokens", "output_tokens",
    "cost_usd",
)  # fmt: skip


@require_safe
@tenant_page
def billing(request: HttpRequest, member: Member) -> HttpResponse:
    """Credit and where it came from, what was bought, the invoices."""
    require(member, Action.SEE_MONEY)
    return billing_page(request, member)


def billing_page(request: HttpRequest, member: Member, **changed: Any) -> HttpResponse:
    tenant, now = member.tenant, timezone.now()
    issued = Invoice.objects.filter(tenant=tenant).exclude(state=Invoice.State.DRAFT)
    invoices = _newest(issued, request, "invoices")
    left = receivables.open_of_each(invoices.rows)
    recharge = Recharge.objects.filter(tenant=tenant).first()
    month = month_asked(request)
    context = {
        "month": month,
        "centres": chargeback.of_month(tenant, month),
        "invoices": invoices,
        "rows": [(invoice, left[invoice.pk].total_cents) for invoice in invoices.rows],
        "notes": _newest(
            CreditNote.objects.filter(invoice__tenant=tenant).select_related("invoice"),
            request,
            "credit-notes",
        ),
        "adjustments": _newest(
            AdjustmentNote.objects.filter(tenant=tenant).select_related("grant"),
            request,
            "adjustments",
        ),
        "credit": credit.parts(tenant, now=now),
        "pays": plans.texts([tenant], now)[tenant.pk],
        "topups": _newest(
            TopUp.objects.filter(tenant=tenant)
            .select_related("receipt")
            .prefetch_related("refunds"),
            request,
            "purchases",
        ),
        "recharge": recharge,
        "low_credit": budget_rows.low_credit(tenant),
        "can_buy": processor.is_configured(),
        "topup_form": TopUpForm(),
        "recharge_form": RechargeForm(initial=recharge_terms(recharge)),
        **changed,
    }
    status = 422 if "topup_form" in changed or "recharge_form" in changed else 200
    return render_page(
        request, "console/billing.html", context, nav="billing", member=member, status=status
    )


@dataclass(frozen=True, slots=True)
class Newest(Generic[Document]):
    """A list's part on the page. `name` is its parameter and its anchor; `next_query` leads to what
    is older, if anything is."""

    name: str
    rows: list[Document]
    next_query: str


def _newest(documents: QuerySet[Document], request: HttpRequest, name: str) -> Newest[Document]:
    """A place that is no number is left out: a link of yesterday still opens."""
    before = request.GET.get(name, "")
    if before.isascii() and before.isdecimal() and len(before) <= DIGITS_MAX:
        documents = documents.filter(pk__lt=int(before))
    found = list(documents.order_by("-pk")[: SHOWN_MAX + 1])
    rows = found[:SHOWN_MAX]
    is_more = len(found) > SHOWN_MAX
    return Newest(name, rows, urlencode({name: rows[-1].pk}) if is_more else "")


@require_safe
@tenant_page
def chargeback_csv(request: HttpRequest, member: Member) -> HttpResponse:
    """A month's use by cost centre, team and model, in exact dollars."""
    require(member, Action.SEE_MONEY)
    month = month_asked(request)
    return csv_response(
        f"chargeback-{member.tenant.slug}-{month}.csv",
        head=CHARGEBACK_HEAD,
        rows=(
            (
                month, line.cost_centre, line.team, line.model, line.requests, line.input_tokens,
                line.output_tokens, f"{usd(line.cost_pico):f}",
            )
            for centre in chargeback.of_month(member.tenant, month)
            for line in centre.lines
        ),
    )  # fmt: skip


@require_safe
@login_required
def invoice_pdf(request: HttpRequest, invoice_id: int) -> HttpResponse:
    found = Invoice.objects.select_related("tenant", "replaces").filter(pk=invoice_id)
    invoice = found.filter(_visible_to(request, "tenant")).first()
    if invoice is None or (invoice.state == Invoice.State.DRAFT and not _is_house(request)):
        raise Http404
    names = dict(Team.objects.filter(tenant=invoice.tenant).values_list("pk", "name"))
    return _pdf(str(invoice), lambda: pdf.of_an_invoice(invoice, team_names=names))


@require_safe
@login_required
def credit_note_pdf(request: HttpRequest, note_id: int) -> HttpResponse:
    found = CreditNote.objects.select_related("invoice__tenant")
    note = get_object_or_404(found, _visible_to(request, "invoice__tenant"), pk=note_id)
    return _pdf(note.number, lambda: pdf.of_a_credit_note(note))


@require_safe
@login_required
def adjustment_pdf(request: HttpRequest, note_id: int) -> HttpResponse:
    found = AdjustmentNote.objects.select_related("grant")
    note = get_object_or_404(found, _visible_to(request, "tenant"), pk=note_id)
    return _pdf(note.number, lambda: pdf.of_an_adjustment(note))


@require_safe
@login_required
def receipt_pdf(request: HttpRequest, receipt_id: int) -> HttpResponse:
    receipt = get_object_or_404(Receipt, _visible_to(request, "topup__tenant"), pk=receipt_id)
    return _pdf(receipt.number, lambda: pdf.of_a_receipt(receipt))


@require_safe
@login_required
def refund_pdf(request: HttpRequest, refund_id: int) -> HttpResponse:
    refund = get_object_or_404(Refund, _visible_to(request, "topup__tenant"), pk=refund_id)
    return _pdf(refund.number, lambda: pdf.of_a_refund(refund))


@require_safe
@login_required
def invoice_focus(request: HttpRequest, invoice_id: int) -> HttpResponse:
    """The invoice and its credit notes as FOCUS rows, for a FinOps tool."""
    found = Invoice.objects.select_related("tenant").filter(state=Invoice.State.FINALISED)
    invoice = get_object_or_404(found, _visible_to(request, "tenant"), pk=invoice_id)
    rows = list(focus.of_invoice(invoice))
    for note in invoice.credit_notes.select_related("invoice__tenant").order_by("pk"):
        rows += focus.of_credit_note(note)
    return csv_response(
        f"{invoice}-focus.csv", head=focus.COLUMNS, rows=(row.values() for row in rows)
    )


def _is_house(request: HttpRequest) -> bool:
    user = request.user
    return isinstance(user, User) and user.is_staff and user.has_perm("billing.view_invoice")


def _visible_to(request: HttpRequest, tenant: str) -> Q:
    """Whose documents these are: a document of another tenant is one that does not exist."""
    if _is_house(request):
        return Q()
    assert isinstance(request.user, User)
    members = Member.objects.filter(user=request.user, role__in=ALLOWED[Action.SEE_MONEY])
    return Q(**{f"{tenant}__in": members.values("tenant")})


def _pdf(name: str, make: Callable[[], bytes]) -> HttpResponse:
    try:
        body = make()
    except InvoiceRefused as refusal:
        return HttpResponse(str(refusal), status=503, content_type="text/plain; charset=utf-8")
    response = HttpResponse(body, content_type="application/pdf")
    response["Content-Disposition"] = f'inline; filename="{name.replace(" ", "-")}.pdf"'
    response["Cache-Control"] = "private, no-store"
    return response
