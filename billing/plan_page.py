"""The page on which an operator puts tenants on a plan: whose prices they pay, and a reason.

Nothing is changed before the form was confirmed; what changes is `billing.price_lists`' affair.
"""

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from billing import price_lists
from billing.models import PriceList, PriceRule, Tenant
from billing.rates import percent_text

PUT_ON_PLAN = "Put on a plan…"
# The page shows each of them with the plan that it leaves.
TENANTS_MAX = 200
PLANS = PriceList.objects.filter(kind=PriceList.Kind.PLAN).order_by("name")


class PlanForm(forms.Form):
    plan = forms.ModelChoiceField(
        queryset=PLANS,
        required=False,
        empty_label="No plan: list prices",
        widget=UnfoldAdminSelectWidget,
        help_text="New requests pay its prices; what is under way keeps the price it began with.",
    )
    reason = forms.CharField(max_length=120, widget=UnfoldAdminTextInputWidget)


def put_on_plan(
    site: "ModelAdmin[Tenant]", request: HttpRequest, chosen: "QuerySet[Tenant]"
) -> HttpResponse | None:
    """The page, or None once the form was confirmed and the tenants are on the plan."""
    tenants = list(chosen.select_related("plan").order_by("name")[: TENANTS_MAX + 1])
    if not tenants or len(tenants) > TENANTS_MAX:
        site.message_user(request, f"Choose 1 to {TENANTS_MAX} tenants.", messages.WARNING)
        return None
    form = PlanForm(request.POST if "_confirm" in request.POST else None)
    if form.is_valid():
        plan = form.cleaned_data["plan"]
        with transaction.atomic():
            for tenant in tenants:
                price_lists.assign(
                    tenant=tenant,
                    plan=plan,
                    actor=request.user.get_username(),
                    now=timezone.now(),
                    reason=form.cleaned_data["reason"],
                )
        site.message_user(
            request, f"{len(tenants)} tenants pay {plan.name if plan else 'list prices'} from now."
        )
        return None
    context = {
        **site.admin_site.each_context(request),
        "title": "Put tenants on a plan",
        "form": form,
        "tenants": tenants,
        "plans": [(plan, rules_text(plan)) for plan in PLANS.all()],
        "checkbox": ACTION_CHECKBOX_NAME,
        "opts": site.opts,
    }
    return TemplateResponse(request, "admin/put_on_plan.html", context)


def rules_text(price_list: PriceList) -> str:
    """What its rules say of the list prices now, in words."""
    rules = PriceRule.objects.filter(price_list=price_list, ended_at=None).order_by("pattern")
    shown = (f"{rule.pattern or 'everything'} {percent_text(rule.change_ppm)}" for rule in rules)
    return ", ".join(shown) or "none: list prices"
