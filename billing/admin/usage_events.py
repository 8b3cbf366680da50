"""Usage events in the admin console: what was metered and charged, request by request."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from billing.admin.base_admin import HistoryAdmin, occurring, two_lines
from billing.admin.reviews import quarantine as quarantine_page
from billing.admin.units import dollars
from billing.models import UsageEvent
from billing.outcomes import OUTCOMES


class OutcomeFilter(admin.SimpleListFilter):
    title = parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(outcome, outcome.replace("_", " ")) for outcome in OUTCOMES]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[UsageEvent]
    ) -> QuerySet[UsageEvent]:
        return queryset.filter(outcome=self.value()) if self.value() else queryset


class UsageEventAdmin(HistoryAdmin):
    nothing_yet = "No request was served yet. The start page of a tenant has a first one to paste."
    list_display = ("when", "what", "tokens", "cost", "verdict")
    list_filter = ("state", OutcomeFilter, "tenant", occurring("supplier"))
    search_fields = ("request_id",)
    search_help_text = "The id of a request, or its beginning"
    id_column = "request_id"
    ordering = ("-request_id", "-pk")
    list_select_related = ("tenant",)
    actions = ("resolve",)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_usageevent")

    @admin.action(description="Resolve quarantined events…", permissions=["resolve"])
    def resolve(self, request: HttpRequest, chosen: QuerySet[UsageEvent]) -> HttpResponse | None:
        return quarantine_page.resolve(self, request, chosen)

    # Two lines a cell: all of it is read without scrolling sideways at 1280 pixels.
    @admin.display(description="When, whose")
    def when(self, event: UsageEvent) -> str:
        return two_lines(f"{event.occurred_at:%d %b %Y, %H:%M:%S}", event.tenant.name)

    @admin.display(description="What, outcome")
    def what(self, event: UsageEvent) -> str:
        return two_lines(event.sku, event.outcome.replace("_", " "))

    @admin.display(description="Tokens in / out")
    def tokens(self, event: UsageEvent) -> str:
        return f"{event.input_tokens:,} / {event.output_tokens:,}"

    @admin.display(description="Charged, supplier cost")
    def cost(self, event: UsageEvent) -> str:
        return two_lines(dollars(event.tenant_cost_pico), dollars(event.supplier_cost_pico))

    @display(description="State", label={"posted": "success", "quarantined": "danger"})
    def verdict(self, event: UsageEvent) -> tuple[str, str]:
        return event.state, event.quarantine_reason or event.state
