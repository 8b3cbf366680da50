"""What the payment processor told, in the admin console: disputes and messages."""

from typing import Final

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin.base_admin import HistoryAdmin, occurring, own_page
from billing.admin.invoices import cents_shown
from billing.models import Dispute, ProcessorEvent
from billing.payments import messages as payment_messages

RESOLVED_MAX: Final = 500


class ResolveForm(forms.Form):
    note = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)


class DisputeAdmin(HistoryAdmin):
    """Payments that are disputed: their credit is taken until the dispute is won."""

    nothing_yet = "Nobody disputes a payment."
    list_display = ("opened_at", "tenant", "topup", "amount", "reached", "taken", "dispute_id")
    list_filter = ("topup__tenant",)
    search_fields = ("dispute_id", "topup__payment_reference")
    named_by = ("dispute_id",)
    list_select_related = ("topup__tenant",)

    @display(description="Tenant")
    def tenant(self, dispute: Dispute) -> str:
        return str(dispute.topup.tenant)

    @display(description="Amount", ordering="amount_cents")
    def amount(self, dispute: Dispute) -> str:
        return cents_shown(dispute.amount_cents)

    @display(description="Told of")
    def reached(self, dispute: Dispute) -> str:
        return ", ".join(dispute.stages)

    @display(description="Credit is taken", boolean=True)
    def taken(self, dispute: Dispute) -> bool:
        return dispute.is_taken


class ProcessorEventAdmin(HistoryAdmin):
    """What the processor told. `waiting`: of a payment that is not known yet, tried again by
    itself; `given_up`: none came for a month; `review`: a person has to look at it."""

    nothing_yet = (
        "The payment processor has sent nothing yet. Its key and its webhook's secret are settings."
    )
    list_display = (
        "received_at", "status", "kind", "event_id", "outcome", "reference", "tries", "due_at",
    )  # fmt: skip
    list_filter = ("state", occurring("kind"))
    search_fields = named_by = ("event_id", "reference")
    actions = ("resolve",)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_processorevent")

    @admin.action(description="Say what was done about them…", permissions=["resolve"])
    def resolve(
        self, request: HttpRequest, chosen: "QuerySet[ProcessorEvent]"
    ) -> HttpResponse | None:
        rows = list(chosen.filter(state=ProcessorEvent.State.REVIEW)[:RESOLVED_MAX])
        form = ResolveForm(request.POST if "_confirm" in request.POST else None)
        if form.is_valid():
            done = payment_messages.resolve(
                [row.pk for row in rows],
                note=form.cleaned_data["note"],
                actor=request.user.get_username(),
                now=timezone.now(),
            )
            self.message_user(request, f"{done} messages are resolved.")
            return None
        return own_page(
            self,
            request,
            "admin/resolve_messages.html",
            title="Resolve messages",
            form=form,
            rows=rows,
        )

    @display(
        description="State",
        label={"done": "success", "waiting": "info", "given_up": "warning", "review": "danger"},
    )
    def status(self, event: ProcessorEvent) -> str:
        return event.state
