"""Adjustment notes in the admin console: all that were issued, and one to be issued by hand."""

from typing import Any

from django import forms
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDateWidget, UnfoldAdminSelectWidget

from billing.admin.base_admin import Growing, ServiceAdmin
from billing.admin.units import dollars
from billing.corrections import adjustments
from billing.dollar_field import DollarField
from billing.errors import BillingError
from billing.models import AdjustmentNote
from billing.money import PICO_PER_USD

BY_HAND = (AdjustmentNote.Cause.SERVICE, AdjustmentNote.Cause.OTHER)


class AdjustmentForm(forms.ModelForm):  # type: ignore[type-arg]
    cause = forms.ChoiceField(
        choices=[(cause.value, cause.label) for cause in BY_HAND], widget=UnfoldAdminSelectWidget
    )
    given_usd = DollarField(
        label="Given back, $",
        minimum=None,
        help_text="Below zero: charged, and due on the next invoice.",
    )
    month = forms.DateField(
        label="For the month of",
        widget=UnfoldAdminDateWidget,
        help_text="Any day of the month (UTC) whose spending it changes.",
    )

    class Meta:
        model = AdjustmentNote
        fields = ("tenant", "cause", "reason")


class AdjustmentNoteAdmin(Growing, ServiceAdmin):  # type: ignore[misc]
    nothing_yet = "No tenant's credit was adjusted yet."
    form = AdjustmentForm
    refusals = (BillingError,)
    list_display = ("document", "tenant", "cause", "charged", "reason", "by", "issued_at")
    list_filter = ("cause", "tenant")
    search_fields = ("number", "tenant__name", "reason")
    named_by = ("number",)
    list_select_related = ("tenant", "grant")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        amount_pico = int(form.cleaned_data["given_usd"] * PICO_PER_USD)
        made = adjustments.post(
            tenant=obj.tenant,
            cause=obj.cause,
            amount_pico=amount_pico,
            months={form.cleaned_data["month"].replace(day=1): amount_pico},
            reason=obj.reason,
            created_by=request.user.get_username(),
            now=timezone.now(),
        )
        self.take_over(obj, made)

    @display(description="Number", ordering="number")
    def document(self, note: AdjustmentNote) -> str:
        address = reverse("adjustment-pdf", args=[note.pk])
        return format_html('<a class="house-link" href="{}">{}</a>', address, note.number)

    @display(description="Charged")
    def charged(self, note: AdjustmentNote) -> str:
        return dollars(note.charged_pico)

    @display(description="By")
    def by(self, note: AdjustmentNote) -> str:
        return note.grant.created_by
