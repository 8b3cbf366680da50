"""Reconciliation in the admin console: upload a provider's bill, see what differs, accept it."""

import hashlib
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldAdminSelectWidget

from billing import reconciling
from billing.admin_pages import ReadOnlyAdmin
from billing.errors import BillingError
from billing.models import ProviderBill, ProviderBillLine
from providers import usage_files
from providers.models import Offer, Provider
from providers.usage_files import UsageFile, UsageFileRefused

CELLS_SHOWN_MAX: Final = 500


class BillForm(forms.Form):
    provider = forms.ModelChoiceField(
        Provider.objects.order_by("name"), to_field_name="slug", widget=UnfoldAdminSelectWidget
    )
    file = forms.FileField(
        label="Bill or usage export",
        widget=UnfoldAdminFileFieldWidget,
        help_text="CSV with date, model, input_tokens, output_tokens and cost_usd, or the export of"
        " OpenAI, Anthropic, OpenRouter or LiteLLM; up to 2.4 MB.",
    )


def lines_of(found: UsageFile, provider: Provider) -> list[ProviderBillLine]:
    """The file's days in our names of models; rows that name no day are left out."""
    ours = {
        upstream.lower(): slug
        for upstream, slug in Offer.objects.filter(provider=provider).values_list(
            "upstream_model", "model__slug"
        )
    }
    lines: dict[tuple[object, str], ProviderBillLine] = {}
    for (_, model, day), used in found.days.items():
        if day is None:
            continue
        name = ours.get(model, model)
        line = lines.setdefault(
            (day, name),
            ProviderBillLine(day=day, model=name, input_tokens=0, output_tokens=0, cost_pico=None),
        )
        line.input_tokens += used.usage.input_tokens
        line.output_tokens += used.usage.output_tokens
        if used.paid_pico is not None:
            line.cost_pico = (line.cost_pico or 0) + used.paid_pico
    return list(lines.values())


class ProviderBillAdmin(ReadOnlyAdmin):
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
        context = {
            **self.admin_site.each_context(request),
            "title": "Upload a provider's bill",
            "form": form,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/upload_bill.html", context)

    def _stored(self, request: HttpRequest, form: BillForm) -> ProviderBill | None:
        provider, file = form.cleaned_data["provider"], form.cleaned_data["file"]
        try:
            found = usage_files.read(file)
            file.seek(0)
            return reconciling.store(
                supplier=provider.slug,
                lines=lines_of(found, provider),
                file_name=file.name,
                file_format=found.format,
                file_hash=hashlib.sha256(file.read()).digest(),
                uploaded_by=request.user.get_username(),
                now=timezone.now(),
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
        if request.method == "POST":
            return self._accept(request, bill)
        cells = reconciling.compare(bill)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Bill of {bill}",
            "bill": bill,
            "cells": cells[:CELLS_SHOWN_MAX],
            "equal": sum(not cell.reasons for cell in cells),
            "total": len(cells),
            "ours_pico": sum(cell.ours.cost_pico for cell in cells),
            "difference_pico": reconciling.difference_pico(cells),
            "may_accept": request.user.has_perm("billing.change_providerbill"),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/reconciliation.html", context)

    def _accept(self, request: HttpRequest, bill: ProviderBill) -> HttpResponse:
        if not request.user.has_perm("billing.change_providerbill"):
            raise PermissionDenied
        try:
            reconciling.accept(
                bill_id=bill.pk, accepted_by=request.user.get_username(), now=timezone.now()
            )
        except BillingError as refusal:
            self.message_user(request, f"Nothing was posted: {refusal}", messages.ERROR)
        else:
            self.message_user(request, "Accepted: what we owe is what the bill says.")
        return HttpResponseRedirect(self._address(bill))
