"""What the payment processor told, in the admin console: disputes and messages."""

from unfold.decorators import display

from billing.admin_pages import ReadOnlyAdmin
from billing.invoicing.admin import cents_shown
from billing.models import Dispute, ProcessorEvent


class DisputeAdmin(ReadOnlyAdmin):
    """Payments that are disputed: their credit is taken until the dispute is won."""

    list_display = ("opened_at", "tenant", "topup", "amount", "reached", "taken", "dispute_id")
    list_filter = ("topup__tenant",)
    search_fields = ("dispute_id", "topup__payment_reference")
    list_select_related = ("topup__tenant",)
    ordering = ("-pk",)

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


class ProcessorEventAdmin(ReadOnlyAdmin):
    """What the processor told. `waiting`: of a payment that is not known yet, tried again by
    itself; `given_up`: none came for a month; `review`: a person has to look at it."""

    list_display = (
        "received_at", "status", "kind", "event_id", "outcome", "reference", "tries", "due_at",
    )  # fmt: skip
    list_filter = ("state", "kind")
    search_fields = ("event_id", "reference")
    ordering = ("-pk",)

    @display(
        description="State",
        label={"done": "success", "waiting": "info", "given_up": "warning", "review": "danger"},
    )
    def status(self, event: ProcessorEvent) -> str:
        return event.state
