"""The page on which an operator puts tenants on a plan: whose prices they pay, and a reason.

Nothing is changed before the form was confirmed; what changes is `billing.prices.plans`' affair.
"""

from collections.abc import Iterable
from datetime import datetime

from django import forms
from django.contrib import messages
from django.contrib.admin import ModelAdmin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminDateWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from billing.admin.base_admin import own_page
from billing.errors import PriceRefused
from billing.models import PriceList, PriceRule, Tenant
from billing.prices import plans
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
    begins = forms.DateField(
        required=False,
        widget=UnfoldAdminDateWidget,
        help_text="From the first moment of this day in each tenant's own time zone. "
        "Empty: from now.",
    )
    reason = forms.CharField(max_length=120, widget=UnfoldAdminTextInputWidget)


def put_on_plan(
    site: "ModelAdmin[Tenant]", request: HttpRequest, chosen: "QuerySet[Tenant]"
) -> HttpResponse | None:
    """The page, or None once the form was confirmed and the tenants are on the plan."""
    tenants = list(chosen.order_by("name")[: TENANTS_MAX + 1])
    if not tenants or len(tenants) > TENANTS_MAX:
        site.message_user(request, f"Choose 1 to {TENANTS_MAX} tenants.", messages.WARNING)
        return None
    now = timezone.now()
    form = PlanForm(request.POST if "_confirm" in request.POST else None)
    if form.is_valid():
        try:
            _put(tenants, form, actor=request.user.get_username(), now=now)
        except PriceRefused as refusal:
            form.add_error("begins", str(refusal))
        else:
            site.message_user(request, _done(len(tenants), form))
            return None
    shown = plans.texts(tenants, now)
    offered = list(PLANS.all())
    texts = rules_texts(offered)
    return own_page(
        site,
        request,
        "admin/put_on_plan.html",
        title="Put tenants on a plan",
        form=form,
        tenants=[(tenant, shown[tenant.pk]) for tenant in tenants],
        plans=[(plan, texts[plan.pk]) for plan in offered],
    )


def _put(tenants: list[Tenant], form: PlanForm, *, actor: str, now: datetime) -> None:
    """All of them, or none."""
    stated = form.cleaned_data
    with transaction.atomic():
        for tenant in tenants:
            begins = stated["begins"]
            plans.assign(
                tenant=tenant,
                plan=stated["plan"],
                actor=actor,
                now=now,
                begins_at=begins and plans.moment_of(begins, tenant.time_zone),
                reason=stated["reason"],
            )


def _done(tenants: int, form: PlanForm) -> str:
    plan, begins = form.cleaned_data["plan"], form.cleaned_data["begins"]
    since = f"from {plans.day_text(begins)}" if begins else "from now"
    return f"{tenants} tenants pay {plan.name if plan else plans.LIST_PRICES} {since}."


def rules_texts(price_lists: Iterable[PriceList]) -> dict[int, str]:
    """What the rules of each say of the list prices now, in words."""
    ids = [price_list.pk for price_list in price_lists]
    found: dict[int, list[PriceRule]] = {pk: [] for pk in ids}
    for rule in PriceRule.objects.filter(price_list__in=ids, ended_at=None).order_by("pattern"):
        found[rule.price_list_id].append(rule)
    return {pk: _in_words(rules) for pk, rules in found.items()}


def _in_words(rules: Iterable[PriceRule]) -> str:
    shown = (f"{rule.pattern or 'everything'} {percent_text(rule.change_ppm)}" for rule in rules)
    return ", ".join(shown) or "none: list prices"
