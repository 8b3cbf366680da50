"""The page on which an operator records a payout to a seller: what is owed, a sum, a reference.

Nothing is booked before the form was confirmed; what is booked is `billing.books.payouts`' affair.
"""

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.widgets import UnfoldAdminDateWidget, UnfoldAdminTextInputWidget

from billing.admin.base_admin import own_page
from billing.books import payouts
from billing.dollar_field import DollarField
from billing.errors import BillingError
from gateway.models import Seller

SHOWN_MAX = 10


class PayoutForm(forms.Form):
    amount_usd = DollarField(label="Sent, $", places=2, minimum=None)
    reference = forms.CharField(
        max_length=payouts.REFERENCE_LENGTH_MAX,
        widget=UnfoldAdminTextInputWidget,
        help_text="The bank's own; the same one again books nothing.",
    )
    paid_on = forms.DateField(label="Sent on", widget=UnfoldAdminDateWidget)

    def amount_cents(self) -> int:
        return int(self.cleaned_data["amount_usd"].scaleb(2))


def record(
    site: "ModelAdmin[Seller]", request: HttpRequest, chosen: "QuerySet[Seller]"
) -> HttpResponse | None:
    """The page, or None once the form was confirmed and the payout is booked."""
    found = list(chosen.select_related("team", "provider")[:2])
    if len(found) != 1:
        site.message_user(request, "Choose one seller.", messages.WARNING)
        return None
    seller = found[0]
    form = PayoutForm(request.POST if "_confirm" in request.POST else None)
    if form.is_valid() and _booked(site, request, seller, form):
        return None
    supplier = seller.provider.slug
    return own_page(
        site,
        request,
        "admin/record_payout.html",
        title=f"Record a payout: {seller}",
        form=form,
        seller=seller,
        owed_pico=payouts.owed_pico(supplier),
        payouts=payouts.of(supplier, limit=SHOWN_MAX),
    )


def _booked(
    site: "ModelAdmin[Seller]", request: HttpRequest, seller: Seller, form: PayoutForm
) -> bool:
    try:
        made = payouts.record(
            supplier=seller.provider.slug,
            amount_cents=form.amount_cents(),
            reference=form.cleaned_data["reference"],
            paid_on=form.cleaned_data["paid_on"],
            actor=request.user.get_username(),
            now=timezone.now(),
        )
    except BillingError as refusal:
        site.message_user(request, f"Nothing was booked: {refusal}", messages.ERROR)
        return False
    site.message_user(request, f"The payout {made} is booked.")
    return True
