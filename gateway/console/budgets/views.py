"""Budgets and limits of a tenant, its teams and its keys."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe
from redis.exceptions import RedisError

from billing.errors import BillingError
from billing.limits import alert_channels, credit_alerts, quotas
from gateway.alerts import delivery as alert_delivery
from gateway.console.access import tenant_page
from gateway.console.budgets import rows as budget_rows
from gateway.console.forms import (
    ChannelForm,
    LowCreditForm,
    QuotaForm,
    RaiseForm,
    RateLimitForm,
    ScopeForm,
)
from gateway.console.page_frame import render_page
from gateway.console.saying import saying
from gateway.models import Member
from gateway.tenants.roles import Action, require


@require_safe
@tenant_page
def budgets(request: HttpRequest, member: Member) -> HttpResponse:
    return _page(request, member)


@require_POST
@tenant_page
def set_quota(request: HttpRequest, member: Member) -> HttpResponse:
    require(member, Action.SET_LIMITS)
    scopes = budget_rows.scopes(member.tenant)
    form = QuotaForm(request.POST, scopes=budget_rows.cap_choices(scopes, member.tenant))
    if not form.is_valid():
        return _page(request, member, quota_form=form)
    try:
        quotas.set_quota(
            tenant=member.tenant,
            cap=form.cap(),
            actor=member.user.get_username(),
            now=timezone.now(),
        )
    except (BillingError, RedisError) as refused:
        form.add_error(None, f"Not saved: {refused}")
        return _page(request, member, quota_form=form)
    messages.success(request, "Saved. It holds from the next request on.")
    return redirect("budgets")


@require_POST
@tenant_page
def remove_quota(request: HttpRequest, member: Member, quota_id: int) -> HttpResponse:
    require(member, Action.SET_LIMITS)
    with saying(request, "The budget is lifted."):
        quotas.remove_quota(
            tenant=member.tenant,
            quota_id=quota_id,
            actor=member.user.get_username(),
            now=timezone.now(),
        )
    return redirect("budgets")


@require_POST
@tenant_page
def raise_quota(request: HttpRequest, member: Member, quota_id: int) -> HttpResponse:
    require(member, Action.SET_LIMITS)
    form, now = RaiseForm(request.POST), timezone.now()
    if not form.is_valid():
        messages.error(request, "Nothing was changed: say how high, and for how many days.")
        return redirect("budgets")
    with saying(request, "Raised. The old limit holds again when the time is over."):
        quotas.raise_quota(
            tenant=member.tenant,
            quota_id=quota_id,
            limit_pico=form.limit_pico(),
            until=form.until(now),
            reason=form.cleaned_data["reason"],
            actor=member.user.get_username(),
            now=now,
        )
    return redirect("budgets")


@require_POST
@tenant_page
def add_channel(request: HttpRequest, member: Member) -> HttpResponse:
    require(member, Action.SET_ALERTS)
    form = ChannelForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing was changed: say a mail address or an https URL.")
        return redirect("budgets")
    stated = form.cleaned_data
    with saying(request, "Saved. It is told of every budget, and of low credit."):
        alert_delivery.check_target(stated["kind"], stated["target"])
        alert_channels.add(
            tenant=member.tenant,
            kind=stated["kind"],
            target=stated["target"],
            actor=member.user.get_username(),
            now=timezone.now(),
        )
    return redirect("budgets")


@require_POST
@tenant_page
def set_low_credit(request: HttpRequest, member: Member) -> HttpResponse:
    require(member, Action.SET_ALERTS)
    form = LowCreditForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing was changed: say a sum like 12.50, or nothing.")
        return redirect("budgets")
    credit_alerts.set_threshold(
        tenant=member.tenant,
        below_pico=form.below_pico(),
        actor=member.user.get_username(),
        now=timezone.now(),
    )
    messages.success(request, "Saved.")
    return redirect("budgets")


@require_POST
@tenant_page
def remove_channel(request: HttpRequest, member: Member, channel_id: int) -> HttpResponse:
    require(member, Action.SET_ALERTS)
    with saying(request, "Nobody is told there any more."):
        alert_channels.remove(
            tenant=member.tenant,
            channel_id=channel_id,
            actor=member.user.get_username(),
            now=timezone.now(),
        )
    return redirect("budgets")


@require_POST
@tenant_page
def set_rate_limit(request: HttpRequest, member: Member) -> HttpResponse:
    require(member, Action.SET_LIMITS)
    scopes = budget_rows.scopes(member.tenant)
    form = RateLimitForm(request.POST, scopes=budget_rows.choices(scopes))
    if not form.is_valid():
        return _page(request, member, rate_form=form)
    kind, scope_id = form.scope_chosen()
    quotas.set_rate_limit(
        tenant=member.tenant,
        scope_kind=kind,
        scope_id=int(scope_id),
        rpm=form.cleaned_data["rpm"],
        tpm=form.cleaned_data["tpm"],
        concurrency=form.cleaned_data["concurrency"],
        actor=member.user.get_username(),
        now=timezone.now(),
    )
    messages.success(request, "Saved. It holds from the next request on.")
    return redirect("budgets")


def _page(
    request: HttpRequest,
    member: Member,
    *,
    quota_form: ScopeForm | None = None,
    rate_form: ScopeForm | None = None,
) -> HttpResponse:
    tenant, now = member.tenant, timezone.now()
    scopes, limits = budget_rows.scopes(tenant), quotas.limits_for(tenant)
    names = budget_rows.names(scopes)
    context = {
        "quotas": budget_rows.quota_rows(limits.quotas, names, now),
        "rate_limits": budget_rows.rate_rows(limits.rates, names),
        "balance": budget_rows.balance_or_none(tenant),
        "low_credit": budget_rows.low_credit(tenant),
        "tenant_zone": tenant.time_zone,
        "changes": budget_rows.changes(tenant),
        "quota_form": quota_form or QuotaForm(scopes=budget_rows.cap_choices(scopes, tenant)),
        # The same beside each budget.
        "raise_fields": render_to_string("parts/fields.html", {"form": RaiseForm()}),
        "channel_form": ChannelForm(),
        "channels": budget_rows.channels(tenant),
        "low_credit_form": LowCreditForm(initial=budget_rows.low_credit_terms(tenant)),
        "watched": budget_rows.watched(tenant, now),
        "rate_form": rate_form or RateLimitForm(scopes=budget_rows.choices(scopes)),
    }
    status = 422 if quota_form or rate_form else 200
    return render_page(
        request, "console/budgets.html", context, nav="budgets", member=member, status=status
    )
