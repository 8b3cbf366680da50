"""The overview: what a span of time cost, on what, what it will come to, what would be cheaper."""

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing.books import usage_sums
from gateway.console.access import tenant_page
from gateway.console.budgets import rows as budget_rows
from gateway.console.overview import figures as overview_figures
from gateway.console.overview import repricing
from gateway.console.overview.periods import DEFAULT_SPAN, SPANS, period_of
from gateway.console.page_frame import render_page
from gateway.console.requests import request_list
from gateway.models import Member
from providers.boards import price_moves

REQUESTS_SHOWN = 8


@require_safe
@tenant_page
def overview(request: HttpRequest, member: Member) -> HttpResponse:
    if usage_sums.first_used_hour(member.tenant_id) is None:
        return redirect("start")
    now = timezone.now()
    period = period_of(request.GET.get("span", DEFAULT_SPAN), now)
    everything = request_list.asked_in({})
    uses = repricing.recent_use(member.tenant_id, now=now)
    context = {
        "period": period,
        "spans": SPANS,
        "figures": overview_figures.read(member.tenant, period),
        "savings": repricing.savings(uses)[:5],
        "used_models": len(uses),
        "moves": price_moves.of_own(
            [use.model for use in uses], since=now - repricing.LOOKED_BACK, now=now
        ),
        "rows": request_list.read(member.tenant_id, everything, limit=REQUESTS_SHOWN).rows,
        "low_credit": budget_rows.low_credit(member.tenant),
        "now": now,
    }
    return render_page(request, "console/overview.html", context, nav="overview", member=member)


@require_safe
@tenant_page
def spend_csv(request: HttpRequest, member: Member) -> HttpResponse:
    now = timezone.now()
    spends = usage_sums.spend_by_day(member.tenant_id, since=now - timedelta(days=400), until=now)
    return overview_figures.spend_csv(spends)
