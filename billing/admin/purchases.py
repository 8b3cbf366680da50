"""Bought credit in the admin console; what waits for a person is ended here, with a note."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from billing.admin.base_admin import HistoryAdmin, own_page
from billing.admin.invoices import cents_shown
from billing.errors import BillingError
from billing.models import TopUp
from billing.payments import topup_reviews

CREDIT: Final = "credit"
ENDS: Final = (
    ("", "Choose"),
    (CREDIT, "The money is here: grant it as credit"),
    ("close", "No money of it is here: it has failed"),
)


class EndForm(forms.Form):
    end = forms.ChoiceField(label="What became of it", choices=ENDS, widget=UnfoldAdminSelectWidget)
    arrived_usd = forms.DecimalField(
        label="Arrived, with tax, $",
        required=False,
        min_value=Decimal("0.01"),
        decimal_places=2,
        max_digits=12,
        help_text="In dollars, before what went back. Only where it is granted.",
        widget=UnfoldAdminDecimalFieldWidget,
    )
    reference = forms.CharField(
        label="Payment",
        required=False,
        max_length=120,
        help_text="The processor's name of it, where it never told us one.",
        widget=UnfoldAdminTextInputWidget,
    )
    note = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)

    def clean(self) -> None:
        super().clean()
        stated = self.cleaned_data
        if stated.get("end") == CREDIT and stated.get("arrived_usd") is None:
            self.add_error("arrived_usd", "Say what has arrived.")


class TopUpAdmin(HistoryAdmin):
    """What was bought. `review`: another sum than was asked for was paid, or nobody could say for
    weeks; nothing was granted."""

    nothing_yet = "Nobody has bought credit yet."
    list_display = (
        "created_at",
        "tenant",
        "status",
        "net",
        "tax",
        "returned",
        "payment_reference",
        "document",
        "failure",
    )
    list_filter = ("state", "is_automatic", "tenant")
    search_fields = ("payment_reference", "tenant__name", "receipt__number")
    named_by = ("payment_reference",)
    list_select_related = ("tenant", "receipt")
    actions = ("end_review",)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_topup")

    @admin.action(description="End the review of one…", permissions=["resolve"])
    def end_review(self, request: HttpRequest, chosen: "QuerySet[TopUp]") -> HttpResponse | None:
        rows = list(chosen.filter(state=TopUp.State.REVIEW)[:2])
        if len(rows) != 1:
            self.message_user(request, "Choose one purchase under review.", messages.WARNING)
            return None
        (topup,) = rows
        asked = Decimal(topup.total_cents).scaleb(-2)
        initial = {"arrived_usd": asked, "reference": topup.payment_reference}
        form = EndForm(request.POST if "_confirm" in request.POST else None, initial=initial)
        if form.is_valid() and self._ended(request, topup, form.cleaned_data):
            return None
        return own_page(
            self,
            request,
            "admin/end_review.html",
            title="End the review of a purchase",
            form=form,
            topup=topup,
        )

    def _ended(self, request: HttpRequest, topup: TopUp, asked: Mapping[str, Any]) -> bool:
        actor, now = request.user.get_username(), timezone.now()
        try:
            if asked["end"] == CREDIT:
                topup_reviews.credit(
                    topup_id=topup.pk,
                    arrived_cents=int(asked["arrived_usd"].scaleb(2)),
                    reference=asked["reference"],
                    note=asked["note"],
                    actor=actor,
                    seller=settings.INVOICE_SELLER,
                    now=now,
                )
            else:
                topup_reviews.close(topup_id=topup.pk, note=asked["note"], actor=actor, now=now)
        except BillingError as refusal:
            self.message_user(request, f"Nothing was changed: {refusal}.", messages.ERROR)
            return False
        said = "is granted" if asked["end"] == CREDIT else "has failed; nothing is granted for it"
        self.message_user(request, f"The purchase {said}.")
        return True

    @display(
        description="State",
        label={"paid": "success", "started": "info", "failed": "warning", "review": "danger"},
    )
    def status(self, topup: TopUp) -> str:
        return topup.state

    @display(description="Credit", ordering="net_cents")
    def net(self, topup: TopUp) -> str:
        return cents_shown(topup.net_cents)

    @display(description="Tax", ordering="tax_cents")
    def tax(self, topup: TopUp) -> str:
        return cents_shown(topup.tax_cents)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TopUp]:
        return super().get_queryset(request).prefetch_related("refunds")

    @display(description="Documents", ordering="receipt__number")
    def document(self, topup: TopUp) -> str:
        receipt = getattr(topup, "receipt", None)
        documents = [(reverse("receipt-pdf", args=[receipt.pk]), receipt.number)] if receipt else []
        for refund in topup.refunds.all():
            documents.append((reverse("refund-pdf", args=[refund.pk]), refund.number))
        return format_html_join(" ", '<a class="house-link" href="{}">{}</a>', documents)

    @display(description="Taken back", ordering="returned_cents")
    def returned(self, topup: TopUp) -> str:
        return cents_shown(topup.returned_cents)
