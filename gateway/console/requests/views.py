"""Requests: the live list, and one request whole."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing.books import usage_queries, usage_sums
from gateway.console.access import tenant_page
from gateway.console.page_frame import render_page
from gateway.console.requests import advice, cost_lines, refusal_queries, request_list, waterfall
from gateway.models import ApiKey, Member
from gateway.tenants import quarantine_notes

FILTERS_LOOK_BACK: Final = timedelta(days=30)


@require_safe
@tenant_page
def requests(request: HttpRequest, member: Member) -> HttpResponse:
    since = timezone.now() - FILTERS_LOOK_BACK
    context = {
        "page": request_list.read(member.tenant_id, request_list.asked_in(request.GET)),
        "choices": usage_sums.filter_choices(member.tenant_id, since=since),
        "keys": ApiKey.objects.filter(tenant=member.tenant).order_by("name"),
    }
    return render_page(request, "console/requests.html", context, nav="requests", member=member)


@require_safe
@tenant_page
def one_request(request: HttpRequest, member: Member, request_id: UUID) -> HttpResponse:
    record = usage_queries.one_request(member.tenant_id, request_id)
    if record is None:
        return _refused(request, member, request_id)
    first = record.row.attempts[0]
    context = {
        "record": record,
        "row": request_list.listed(record.row),
        "last": record.row.last,
        "held": quarantine_notes.of(record.row.last),
        "ranking": request_list.ranking_of(first),
        "waterfall": waterfall.draw(record.row.attempts),
        "bills": [
            (event, cost_lines.bill_of(event), record.true_ups.get(event.attempt))
            for event in record.row.attempts
        ],
        "key": _key(member, first.api_key_id),
    }
    return render_page(request, "console/request.html", context, nav="requests", member=member)


def _refused(request: HttpRequest, member: Member, request_id: UUID) -> HttpResponse:
    refusal = refusal_queries.one(member.tenant_id, request_id)
    if refusal is None:
        raise Http404("no such request")
    reasons = refusal.detail.get("reasons", ())
    facts = {name: value for name, value in refusal.detail.items() if name != "reasons"}
    context = {
        "refusal": refusal,
        "help": advice.on(refusal.status, refusal.code),
        "key": _key(member, refusal.api_key_id),
        "reasons": reasons,
        "facts": facts,
    }
    return render_page(request, "console/refusal.html", context, nav="requests", member=member)


def _key(member: Member, key_id: int | None) -> ApiKey | None:
    if key_id is None:
        return None
    return ApiKey.objects.filter(tenant=member.tenant, pk=key_id).first()
