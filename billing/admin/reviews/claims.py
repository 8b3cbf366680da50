"""The operators' page of claims: what sellers counted beyond what was asked, and what is owed."""

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget

from billing.admin.base_admin import HistoryAdmin, occurring, own_page
from billing.books import claims
from billing.errors import BillingError
from billing.models import Claim
from billing.money import pico_from_usd

CLAIMS_MAX = 50


class DecideForm(forms.Form):
    owed_usd = forms.DecimalField(
        label="The seller is owed, $",
        help_text="For each claim, on top of nothing; 0 where it is owed nothing.",
        min_value=0,
        decimal_places=12,
        max_digits=20,
        widget=UnfoldAdminDecimalFieldWidget,
    )
    reason = forms.CharField(max_length=120, widget=UnfoldAdminTextInputWidget)


class ClaimAdmin(HistoryAdmin):
    nothing_yet = "No seller has claimed more than it was asked for."
    list_display = ("occurred_at", "supplier", "sku", "reason", "claimed", "billed", "verdict")
    list_filter = (("decided_at", admin.EmptyFieldListFilter), occurring("supplier"))
    search_fields = ("request_id",)
    id_column = "request_id"
    actions = ("decide",)

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_claim")

    @admin.action(description="Decide what is owed…", permissions=["decide"])
    def decide(self, request: HttpRequest, chosen: "QuerySet[Claim]") -> HttpResponse | None:
        found = list(chosen.filter(decided_at=None).order_by("pk")[: CLAIMS_MAX + 1])
        if not found or len(found) > CLAIMS_MAX:
            words = f"Choose 1 to {CLAIMS_MAX} claims that nobody has decided."
            self.message_user(request, words, messages.WARNING)
            return None
        form = DecideForm(request.POST if "_confirm" in request.POST else None)
        if form.is_valid() and self._decided(request, found, form):
            return None
        return own_page(
            self,
            request,
            "admin/decide_claims.html",
            title="Claims beyond what was asked",
            form=form,
            claims=found,
        )

    def _decided(self, request: HttpRequest, found: list[Claim], form: DecideForm) -> bool:
        asked = form.cleaned_data
        try:
            claims.decide_all(
                claim_ids=[claim.pk for claim in found],
                owed_pico=pico_from_usd(asked["owed_usd"]),
                decided_by=request.user.get_username(),
                reason=asked["reason"],
                now=timezone.now(),
            )
        except BillingError as refusal:
            self.message_user(request, f"Nothing was decided: {refusal}", messages.ERROR)
            return False
        self.message_user(request, f"{len(found)} claims are decided.")
        return True

    @admin.display(description="Claimed in / out")
    def claimed(self, claim: Claim) -> str:
        return f"{claim.claimed_input_tokens:,} / {claim.claimed_output_tokens:,}"

    @admin.display(description="Billed in / out")
    def billed(self, claim: Claim) -> str:
        return f"{claim.billed_input_tokens:,} / {claim.billed_output_tokens:,}"

    @display(description="State", label={"decided": "success", "to review": "danger"})
    def verdict(self, claim: Claim) -> str:
        return "decided" if claim.decided_at else "to review"
