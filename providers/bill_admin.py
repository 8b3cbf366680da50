"""Reconciliation in the admin console: upload a provider's bill, see what differs, accept it."""

import hashlib
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSingleDateWidget,
    UnfoldAdminTextInputWidget,
)

from billing.admin.base_admin import ReadOnlyAdmin, own_page
from billing.books import bill_comparison, bill_rows, reconciling
from billing.books.bill_rows import Part
from billing.books.reconciling import Stated
from billing.errors import BillingError
from billing.models import ProviderBill
from billing.money import pico_from_usd, usd_json
from providers.imports import bill_files
from providers.imports.usage_files import UsageFileRefused
from providers.models import Offer, Provider

CELLS_SHOWN_MAX: Final = 500
ROWS_SHOWN_MAX: Final = 500
PERIOD: Final = ("first_day", "last_day")


class BillForm(forms.Form):
    provider = forms.ModelChoiceField(
        Provider.objects.order_by("name"), to_field_name="slug", widget=UnfoldAdminSelectWidget
    )
    file = forms.FileField(
        label="Bill or usage export",
        widget=UnfoldAdminFileFieldWidget,
        help_text="CSV with date, model, input_tokens, output_tokens, cost and currency (dollars"
        " where there is none), or the export of OpenAI, Anthropic, OpenRouter or LiteLLM; up to"
        " 2.4 MB.",
    )
    first_day = forms.DateField(
        label="First day of the document",
        required=False,
        help_text="Where it names its days: its rows may begin later. May be empty.",
        widget=UnfoldAdminSingleDateWidget,
    )
    last_day = forms.DateField(
        label="Last day of the document", required=False, widget=UnfoldAdminSingleDateWidget
    )
    total_usd = forms.DecimalField(
        label="Total of the document, $",
        required=False,
        decimal_places=12,
        max_digits=24,
        help_text="What it asks in all, in dollars; its rows have to come to that. May be empty.",
        widget=UnfoldAdminDecimalFieldWidget,
    )


class RateForm(forms.Form):
    currency = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    usd_per_unit = forms.DecimalField(
        label="One unit is, $",
        min_value=0,
        decimal_places=12,
        max_digits=20,
        widget=UnfoldAdminDecimalFieldWidget,
    )
    day = forms.DateField(label="On the day", widget=UnfoldAdminSingleDateWidget)
    source = forms.CharField(
        max_length=120,
        help_text="Who says so: a central bank's rate, the payment's statement.",
        widget=UnfoldAdminTextInputWidget,
    )

    def __init__(self, *args: Any, currencies: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice = self.fields["currency"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [(name, name) for name in currencies]


def names_of(provider: Provider) -> dict[str, str]:
    """Our names of the models that this provider's bill names in its own way."""
    sold = Offer.objects.filter(provider=provider).values_list("upstream_model", "model__slug")
    return {upstream.lower(): slug for upstream, slug in sold}


class ProviderBillAdmin(ReadOnlyAdmin):
    nothing_yet = "No bill of a provider was uploaded yet."
    list_display = ("supplier", "first_day", "last_day", "file_name", "status", "uploaded_by")
    list_filter = ("supplier",)
    ordering = ("-pk",)

    @display(description="State", label={"accepted": "success", "open": "warning"})
    def status(self, bill: ProviderBill) -> str:
        return "accepted" if bill.accepted_at else "open"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_providerbill")

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = BillForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid():
            bill = self._stored(request, form)
            if bill is not None:
                return HttpResponseRedirect(self._address(bill))
        return own_page(
            self,
            request,
            "admin/upload_bill.html",
            title="Upload a provider's bill",
            form=form,
        )

    def _stored(self, request: HttpRequest, form: BillForm) -> ProviderBill | None:
        provider, file = form.cleaned_data["provider"], form.cleaned_data["file"]
        total = form.cleaned_data["total_usd"]
        now = timezone.now()
        try:
            file_format, rows = bill_files.read(file, names_of(provider), now=now)
            file.seek(0)
            return reconciling.store(
                supplier=provider.slug,
                rows=rows,
                file_name=file.name,
                file_format=file_format,
                file_hash=hashlib.sha256(file.read()).digest(),
                stated=Stated(
                    None if total is None else pico_from_usd(total),
                    tuple(day for name in PERIOD if (day := form.cleaned_data[name])),
                ),
                uploaded_by=request.user.get_username(),
                now=now,
            )
        except (UsageFileRefused, BillingError) as refusal:
            form.add_error("file", f"Not kept: {refusal}.")
            return None

    def _address(self, bill: ProviderBill) -> str:
        return reverse("admin:billing_providerbill_change", args=[bill.pk])

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The bill beside what we booked, the greatest difference first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        bill = ProviderBill.objects.filter(pk=object_id).first()
        if bill is None:
            raise Http404
        rate_form = RateForm(
            request.POST if request.POST.get("do") == "rate" else None,
            currencies=bill_rows.without_rate(bill),
        )
        if request.method == "POST" and self._done(request, bill, rate_form):
            return HttpResponseRedirect(self._address(bill))
        title, shown = f"Bill of {bill}", self._shown(request, bill)
        template = "admin/reconciliation.html"
        return own_page(self, request, template, title=title, rate_form=rate_form, **shown)

    def _shown(self, request: HttpRequest, bill: ProviderBill) -> dict[str, Any]:
        cells = bill_comparison.compare(bill)
        account = bill_rows.account(bill)
        not_used = bill_rows.not_used(bill)
        return {
            "bill": bill,
            "cells": cells[:CELLS_SHOWN_MAX],
            "equal": sum(not cell.reasons for cell in cells),
            "total": len(cells),
            "ours_pico": sum(cell.ours.cost_pico for cell in cells),
            "difference_pico": bill_comparison.difference_pico(cells, account["carried"].cost_pico),
            "has_again": bill.rows.filter(why__regex=rf"^{bill_rows.AGAIN.pattern}$").exists(),
            "account": [part for part in account.values() if part.rows],
            "rows": not_used[:ROWS_SHOWN_MAX],
            "rows_left_out": max(0, not_used.count() - ROWS_SHOWN_MAX),
            "open_rows": account["open"].rows,
            "unbilled_pico": reconciling.unbilled_pico(bill),
            "unexplained_pico": bill_rows.unexplained_pico(bill, account),
            **({} if bill.accepted_at else self._way_on(bill, account)),
            "rates": bill.rates.order_by("currency"),
            "without_rate": bill_rows.without_rate(bill),
            "may_accept": request.user.has_perm("billing.change_providerbill"),
        }

    def _way_on(self, bill: ProviderBill, account: dict[str, Part]) -> dict[str, Any]:
        """Whether it can be accepted, beside or instead of what was accepted before."""
        before = list(reconciling.accepted_before(bill).order_by("pk"))
        return {
            "accepted_before": before,
            "posted_before_pico": reconciling.posted_before_pico(bill),
            "not_yet": reconciling.not_yet(bill, account, timezone.now(), instead=bool(before)),
        }

    def _done(self, request: HttpRequest, bill: ProviderBill, rate_form: RateForm) -> bool:
        """Whether the page is to be shown anew; a rate that is no rate stays on its form."""
        if not request.user.has_perm("billing.change_providerbill"):
            raise PermissionDenied
        do = request.POST.get("do", "accept")
        if do == "rate" and not rate_form.is_valid():
            return False
        try:
            said = self._do(request, bill, do, rate_form)
        except BillingError as refusal:
            self.message_user(request, f"Nothing was changed: {refusal}.", messages.ERROR)
        else:
            self.message_user(request, said)
        return True

    def _do(self, request: HttpRequest, bill: ProviderBill, do: str, rate_form: RateForm) -> str:
        actor, now = request.user.get_username(), timezone.now()
        if do in ("accept", "instead"):
            reconciling.accept(bill_id=bill.pk, accepted_by=actor, now=now, instead=do == "instead")
            return "Accepted: what we owe is what the bill says."
        if do == "rest":
            note = request.POST.get("note", "")
            rest = bill_rows.carry_rest(bill_id=bill.pk, note=note, decided_by=actor, now=now)
            return f"{usd_json(rest).decode()} dollars are a row of the bill now."
        if do == "rate":
            asked = rate_form.cleaned_data
            rows = bill_rows.state_rate(
                bill_id=bill.pk,
                currency=asked["currency"],
                pico_per_unit=pico_from_usd(asked["usd_per_unit"]),
                day=asked["day"],
                source=asked["source"],
                stated_by=actor,
                now=now,
            )
            return f"{rows} rows are in dollars now."
        chosen = [int(n) for n in request.POST.getlist("row") if n.isascii() and n.isdecimal()]
        rows = bill_rows.decide(
            bill_id=bill.pk,
            numbers=None if request.POST.get("all") else chosen,
            state=do,
            note=request.POST.get("note", ""),
            decided_by=actor,
            now=now,
        )
        return f"{rows} rows are decided."
