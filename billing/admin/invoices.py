"""Invoices in the admin console: draft a month, look, finalise, then pay, credit or void.

What moves money is confirmed on the invoice's own page, one form each, with what it does beside it.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminDateWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminTextInputWidget,
)

from billing.admin.audited import AuditedAdmin
from billing.admin.base_admin import HistoryAdmin, months, occurring, own_page
from billing.admin.units import dollars
from billing.credit import tax
from billing.dollar_field import DollarField
from billing.errors import BillingError
from billing.invoicing import documents, receivables, runs
from billing.models import BillingProfile, CreditNote, Invoice, Payment, Payout, Tenant
from billing.money import PICO_PER_CENT
from billing.rates import PPM_PER_PERCENT

State = Invoice.State
LINES_SHOWN_MAX: Final = 2_000


def cents_shown(cents: int) -> str:
    return dollars(cents * PICO_PER_CENT)


def percent(ppm: int) -> Decimal:
    return Decimal(ppm).scaleb(-4).normalize()


def _text_field(label: str, hint: str = "") -> forms.CharField:
    return forms.CharField(
        label=label, help_text=hint, max_length=120, widget=UnfoldAdminTextInputWidget
    )


class PaymentForm(forms.Form):
    amount_usd = DollarField(label="Received, $", places=2)
    reference = _text_field("Reference", "The bank's or processor's own: it is booked once only.")
    received_on = forms.DateField(label="Received on", widget=UnfoldAdminDateWidget)


class CreditNoteForm(forms.Form):
    net_usd = DollarField(label="Credit before tax, $", places=2)
    reason = _text_field("Reason", "Printed on the credit note.")


class VoidForm(forms.Form):
    reason = _text_field("Reason")


class InvoiceAdmin(HistoryAdmin):
    nothing_yet = 'No invoice yet. "Draft last month…" drafts one for each tenant that is billed.'
    list_display = ("name", "tenant", "period", "status", "usage", "total", "open", "due_on")
    list_filter = ("state", "tenant")
    search_fields = ("number", "tenant__name")
    named_by = ("number",)
    list_select_related = ("tenant",)
    actions = ("finalise_chosen",)
    actions_list = ("draft_month",)  # type: ignore[assignment]

    @display(description="Invoice")
    def name(self, invoice: Invoice) -> str:
        return invoice.number or "draft"

    @display(description="Period", ordering="period_start")
    def period(self, invoice: Invoice) -> str:
        return f"{invoice.first_day:%-d %b} to {invoice.last_day:%-d %b %Y}"

    @display(description="State", label={"draft": "info", "finalised": "success", "void": ""})
    def status(self, invoice: Invoice) -> str:
        return invoice.state

    @display(description="Usage, exactly", ordering="usage_pico")
    def usage(self, invoice: Invoice) -> str:
        return dollars(int(invoice.usage_pico))

    @display(description="Total due")
    def total(self, invoice: Invoice) -> str:
        return cents_shown(invoice.total_cents)

    def ask_once(self, rows: Sequence[Any]) -> None:
        left = receivables.open_of_each(rows)
        for invoice in rows:
            invoice.open_cents = left[invoice.pk].total_cents

    @display(description="Still open")
    def open(self, invoice: Any) -> str:
        return cents_shown(invoice.open_cents)

    def has_write_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_invoice")

    @action(  # type: ignore[operator]
        description="Draft last month…", url_path="draft-due", permissions=["draft_month"]
    )
    def draft_month(self, request: HttpRequest) -> HttpResponse:
        """Asks first; then drafts last month for every tenant that has a billing profile."""
        if request.method != "POST":
            return self._ask_draft(request)
        self._require_write(request)
        made, refused = runs.draft_last_month(
            now=timezone.now(), created_by=request.user.get_username()
        )
        for tenant, why in refused:
            self.message_user(request, f"{tenant}: {why}", messages.WARNING)
        self.message_user(request, f"{len(made)} drafts are made. Look, then finalise them.")
        return HttpResponseRedirect(reverse("admin:billing_invoice_changelist"))

    def _ask_draft(self, request: HttpRequest) -> HttpResponse:
        return own_page(
            self,
            request,
            "admin/draft_invoices.html",
            title="Draft last month's invoices",
            profiles=BillingProfile.objects.count(),
            without=Tenant.objects.filter(billing_profile=None).order_by("name")[:50],
        )

    def has_draft_month_permission(self, request: HttpRequest) -> bool:
        return self.has_write_permission(request)

    def has_finalise_chosen_permission(self, request: HttpRequest) -> bool:
        return self.has_write_permission(request)

    @admin.action(
        description="Finalise: number and freeze the chosen drafts",
        permissions=["finalise_chosen"],
    )
    def finalise_chosen(self, request: HttpRequest, chosen: QuerySet[Invoice]) -> None:
        done = 0
        for invoice in chosen.order_by("period_start", "pk"):
            try:
                self._finalise(request, invoice)
            except BillingError as refusal:
                self.message_user(request, f"{invoice.tenant}: {refusal}", messages.ERROR)
            else:
                done += 1
        self.message_user(request, f"{done} invoices are issued.")

    def _finalise(self, request: HttpRequest, invoice: Invoice) -> Invoice:
        return documents.finalise(
            invoice_id=invoice.pk,
            seller=settings.INVOICE_SELLER,
            actor=request.user.get_username(),
            now=timezone.now(),
        )

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """One invoice with its lines, and a form for each thing that can be done with it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        invoice = Invoice.objects.select_related("tenant").filter(pk=object_id).first()
        if invoice is None:
            raise Http404
        wanted = request.POST.get("do", "")
        bound: dict[str, forms.Form] = {}
        if request.method == "POST":
            self._require_write(request)
            done = self._do(request, invoice, wanted, bound)
            if done is not None:
                return done
        return self._page(request, invoice, bound)

    def _require_write(self, request: HttpRequest) -> None:
        if not self.has_write_permission(request):
            raise PermissionDenied

    def _do(
        self, request: HttpRequest, invoice: Invoice, wanted: str, bound: dict[str, forms.Form]
    ) -> HttpResponse | None:
        """Carry out one action; None leaves the page open with the form that needs mending."""
        form_class = FORMS.get(wanted)
        form = form_class(request.POST) if form_class else None
        if form is not None and not form.is_valid():
            bound[wanted] = form
            return None
        try:
            self._carry_out(request, invoice, wanted, form)
        except BillingError as refusal:
            self.message_user(request, f"Nothing was changed: {refusal}", messages.ERROR)
        return HttpResponseRedirect(request.path)

    def _carry_out(
        self, request: HttpRequest, invoice: Invoice, wanted: str, form: forms.Form | None
    ) -> None:
        who, now = request.user.get_username(), timezone.now()
        asked = form.cleaned_data if form else {}
        if wanted == "finalise":
            done = f"{self._finalise(request, invoice).number} is issued."
        elif wanted == "pay":
            receivables.record_payment(
                invoice_id=invoice.pk,
                amount_cents=int(asked["amount_usd"] * 100),
                reference=asked["reference"],
                received_on=asked["received_on"],
                created_by=who,
                now=now,
            )
            done = "The payment is booked, and its net part is credit again."
        elif wanted == "credit":
            note = receivables.issue_credit_note(
                invoice_id=invoice.pk,
                net_cents=int(asked["net_usd"] * 100),
                reason=asked["reason"],
                created_by=who,
                now=now,
            )
            done = f"{note.number} is issued."
        elif wanted == "void":
            documents.void(invoice_id=invoice.pk, reason=asked["reason"], voided_by=who, now=now)
            done = "Void. A draft of the same charges takes its place."
        else:
            raise Http404
        self.message_user(request, done)

    def _page(
        self, request: HttpRequest, invoice: Invoice, bound: dict[str, forms.Form]
    ) -> HttpResponse:
        return own_page(
            self,
            request,
            "admin/invoice.html",
            title=f"Invoice {invoice.number}" if invoice.number else "Draft invoice",
            invoice=invoice,
            lines=invoice.lines.all().order_by("position")[:LINES_SHOWN_MAX],
            payments=invoice.payments.order_by("pk"),
            credit_notes=invoice.credit_notes.order_by("pk"),
            open_cents=receivables.open_cents(invoice),
            profile=BillingProfile.objects.filter(tenant=invoice.tenant).first(),
            forms={name: bound.get(name) or made() for name, made in FORMS.items()},
            may_write=self.has_write_permission(request),
        )


FORMS: Final[dict[str, type[forms.Form]]] = {
    "pay": PaymentForm,
    "credit": CreditNoteForm,
    "void": VoidForm,
}


class ProfileForm(forms.ModelForm):  # type: ignore[type-arg]
    tax_percent = forms.DecimalField(
        label="Tax, %",
        min_value=0,
        max_value=100,
        max_digits=7,
        decimal_places=4,
        initial=0,
        widget=UnfoldAdminDecimalFieldWidget,
    )

    class Meta:
        model = BillingProfile
        exclude = ("tax_ppm",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["tax_percent"] = percent(self.instance.tax_ppm)

    def clean(self) -> None:
        super().clean()
        cleaned = self.cleaned_data
        self.instance.tax_ppm = int((cleaned.get("tax_percent") or 0) * PPM_PER_PERCENT)
        if self.instance.tax_ppm and not cleaned.get("tax_name"):
            self.add_error("tax_name", "Name the tax that is charged.")
        wrong = tax.refusal(
            tax_ppm=self.instance.tax_ppm,
            tax_id=cleaned.get("tax_id") or "",
            is_reverse_charge=bool(cleaned.get("is_reverse_charge")),
            tax_note=cleaned.get("tax_note") or "",
        )
        if wrong:
            self.add_error("is_reverse_charge", wrong)


class BillingProfileAdmin(AuditedAdmin):
    form = ProfileForm
    list_display = ("legal_name", "tenant", "country", "tax_id", "tax", "terms_days")
    search_fields = ("legal_name", "tenant__name")
    list_select_related = ("tenant",)

    @display(description="Tax, %", ordering="tax_ppm")
    def tax(self, profile: BillingProfile) -> str:
        return f"{percent(profile.tax_ppm):f}"


class CreditNoteAdmin(HistoryAdmin):
    nothing_yet = "No invoice was taken back yet. A finalised invoice's page writes one."
    list_display = ("number", "invoice", "net", "tax", "reason", "created_by", "issued_at")
    search_fields = ("number",)
    named_by = ("number", "invoice__number")
    list_select_related = ("invoice",)

    @display(description="Net", ordering="net_cents")
    def net(self, note: CreditNote) -> str:
        return cents_shown(note.net_cents)

    @display(description="Tax", ordering="tax_cents")
    def tax(self, note: CreditNote) -> str:
        return cents_shown(note.tax_cents)


class PaymentAdmin(HistoryAdmin):
    nothing_yet = "No payment yet. An invoice's page records one, and the processor's messages do."
    list_display = ("reference", "invoice", "amount", "received_on", "created_by")
    search_fields = ("reference",)
    named_by = ("reference", "invoice__number")
    list_select_related = ("invoice",)

    @display(description="Amount", ordering="amount_cents")
    def amount(self, payment: Payment) -> str:
        return cents_shown(payment.amount_cents)


class PayoutAdmin(HistoryAdmin):
    """What sellers were sent; recorded from the list of sellers."""

    nothing_yet = 'Nothing was paid yet. Choose sellers in their list, then "Record a payout…".'
    list_display = ("paid_on", "supplier", "amount", "reference", "created_by", "transfer")
    list_filter = (occurring("supplier"), months("paid_on"))
    search_fields = named_by = ("reference",)
    list_select_related = ("transfer",)

    @display(description="Sum", ordering="amount_cents")
    def amount(self, payout: Payout) -> str:
        return cents_shown(payout.amount_cents)
