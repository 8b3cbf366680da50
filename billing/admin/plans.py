"""Who is, was and will be on which plan, in the admin console; what is to come can be withdrawn."""

from typing import Any

from django.contrib import messages
from django.contrib.admin import SimpleListFilter, action
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from billing.admin.base_admin import ReadOnlyAdmin
from billing.errors import PriceRefused
from billing.models import PlanAssignment
from billing.prices import plans

WITHDRAW_PLAN = "Withdraw: this plan does not begin"


class OnPlan(SimpleListFilter):
    """Tenants by the plan that they are on now."""

    title = "plan"
    parameter_name = "plan"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(plan.slug, plan.name) for plan in plans.known()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = {plan.slug: plan for plan in plans.known()}.get(self.value() or "")
        if wanted is None:
            return queryset
        return queryset.filter(pk__in=plans.tenants_on(wanted, timezone.now()).values("pk"))


class PlanAssignmentAdmin(ReadOnlyAdmin):
    """Given by “Put on a plan…” in the list of tenants."""

    nothing_yet = 'No tenant is on a plan. Choose tenants in their list, then "Put on a plan".'
    list_display = ("tenant", "pays", "assigned_at", "assigned_by", "recorded_at", "state")
    list_filter = ("plan",)
    search_fields = ("tenant__name", "tenant__slug")
    list_select_related = ("tenant", "plan")
    ordering = ("-pk",)
    actions = ("withdraw",)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_tenant")

    @action(description=WITHDRAW_PLAN, permissions=["withdraw"])
    def withdraw(self, request: HttpRequest, chosen: QuerySet[PlanAssignment]) -> None:
        now, actor = timezone.now(), request.user.get_username()
        for row in chosen.select_related("tenant"):
            try:
                plans.withdraw(tenant=row.tenant, assignment_id=row.pk, actor=actor, now=now)
            except PriceRefused as refusal:
                self.message_user(request, f"{row.tenant.name}: {refusal}", messages.WARNING)
            else:
                self.message_user(request, f"{row.tenant.name}: withdrawn.")

    @display(description="Pays")
    def pays(self, row: PlanAssignment) -> str:
        return plans.LIST_PRICES if row.plan is None else row.plan.name

    @display(description="State")
    def state(self, row: PlanAssignment) -> str:
        if row.withdrawn_at is not None:
            return f"withdrawn by {row.withdrawn_by}"
        return "to come" if row.assigned_at > timezone.now() else "begun"
