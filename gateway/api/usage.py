"""What a tenant used and paid: totals, days, single requests with their attempts."""

from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django.http import Http404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import basis
from billing.books import usage_queries, usage_sums
from billing.books.usage_queries import RequestFilter, RequestRow
from billing.models import TrueUp, UsageEvent
from gateway import months
from gateway.api import pagination
from gateway.api.base import TenantView
from gateway.api.pagination import LIMIT_MAX
from gateway.api.shapes import described
from gateway.api.shapes.answers import (
    AttemptAnswer,
    ChargebackAnswer,
    DetailAnswer,
    HeldAnswer,
    RequestAnswer,
    RequestsAnswer,
    TrueUpAnswer,
    UsageAnswer,
    WholeRequestAnswer,
)
from gateway.api.shapes.money_fields import usd_text
from gateway.console.requests import request_list
from gateway.months import NoSuchMonth
from gateway.tenants import chargeback, quarantine_notes
from gateway.tenants.roles import Action

DAYS = timedelta(days=30)


class SpanSerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)


class RequestListSerializer(serializers.Serializer[Any]):
    model = serializers.CharField(max_length=200, required=False)
    outcome = serializers.CharField(max_length=32, required=False)
    before = serializers.CharField(
        max_length=64,
        required=False,
        help_text="The id of a page's last request, as in its `Link` header; or a moment.",
    )
    limit = serializers.IntegerField(min_value=1, max_value=LIMIT_MAX, default=50)

    def validate_before(self, text: str) -> UUID:
        place = request_list.place_in(text)
        if place is None:
            raise serializers.ValidationError("Neither the id of a request nor a moment.")
        return place


def span_of(request: Request) -> tuple[datetime, datetime]:
    stated = SpanSerializer(data=request.query_params.dict())
    stated.is_valid(raise_exception=True)
    until = stated.validated_data.get("until") or timezone.now()
    return stated.validated_data.get("since") or until - DAYS, until


class UsageView(TenantView):
    @extend_schema(parameters=[SpanSerializer], responses=described.answer(UsageAnswer))
    def get(self, request: Request, tenant: str) -> Response:
        """Totals and one line per day, model and supplier, over whole hours (UTC); the last 30
        days by default."""
        since, until = span_of(request)
        tenant_id = self.access.tenant.pk
        totals = usage_sums.totals(tenant_id, since=since, until=until)
        days = usage_sums.spend_by_day(tenant_id, since=since, until=until)
        told: UsageAnswer = {
            "since": since.isoformat(),
            "until": until.isoformat(),
            "totals": {
                "requests": totals.requests,
                "attempts": totals.attempts,
                "input_tokens": totals.input_tokens,
                "cache_read_tokens": totals.cache_read_tokens,
                "output_tokens": totals.output_tokens,
                "cost_usd": usd_text(totals.cost_pico),
            },
            "days": [
                {
                    "day": day.day.isoformat(),
                    "model": day.model,
                    "supplier": day.supplier,
                    "requests": day.requests,
                    "input_tokens": day.input_tokens,
                    "output_tokens": day.output_tokens,
                    "cost_usd": usd_text(day.cost_pico),
                }
                for day in days
            ],
        }
        return Response(told)


class ChargebackView(TenantView):
    reads = Action.SEE_MONEY

    @extend_schema(
        parameters=[OpenApiParameter("month", OpenApiTypes.STR, pattern=r"^\d{4}-\d{2}$")],
        responses=described.answer(ChargebackAnswer),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """A month's use by cost centre, team and model (UTC days); this month by default."""
        try:
            month = months.named(request.query_params.get("month", ""), now=timezone.now())
        except NoSuchMonth as refused:
            raise serializers.ValidationError({"month": [str(refused)]}) from None
        centres = chargeback.of_month(self.access.tenant, month)
        told: ChargebackAnswer = {
            "month": str(month),
            "cost_centres": [
                {
                    "cost_centre": centre.name,
                    "requests": centre.requests,
                    "cost_usd": usd_text(centre.cost_pico),
                    "lines": [
                        {
                            "team": line.team,
                            "model": line.model,
                            "requests": line.requests,
                            "input_tokens": line.input_tokens,
                            "output_tokens": line.output_tokens,
                            "cost_usd": usd_text(line.cost_pico),
                        }
                        for line in centre.lines
                    ],
                }
                for centre in centres
            ],
        }
        return Response(told)


class RequestListView(TenantView):
    @extend_schema(
        operation_id="v1_tenants_requests_list",
        parameters=[RequestListSerializer],
        responses=described.answer(RequestsAnswer),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """The newest requests; the next page is in the `Link` header."""
        stated = RequestListSerializer(data=request.query_params.dict())
        stated.is_valid(raise_exception=True)
        asked = stated.validated_data
        rows = usage_queries.requests(
            self.access.tenant.pk,
            filters=RequestFilter(model=asked.get("model", ""), outcome=asked.get("outcome", "")),
            before=asked.get("before"),
            limit=asked["limit"] + 1,
        )
        has_more, rows = len(rows) > asked["limit"], rows[: asked["limit"]]
        headers = pagination.link_to(request, before=rows[-1].request_id) if has_more else None
        told: RequestsAnswer = {"requests": [_request(row) for row in rows]}
        return Response(told, headers=headers)


class RequestView(TenantView):
    @extend_schema(
        parameters=[OpenApiParameter("request_id", OpenApiTypes.UUID, "path")],
        responses=described.answer(WholeRequestAnswer),
    )
    def get(self, request: Request, tenant: str, request_id: UUID) -> Response:
        """One request with every attempt, its price version and why it was routed so."""
        found = usage_queries.one_request(self.access.tenant.pk, request_id)
        if found is None:
            raise Http404
        trued_up = [_true_up(each) for each in found.true_ups.values()]
        told: WholeRequestAnswer = {**_request(found.row), "trued_up": trued_up}
        return Response(told)


def _request(row: RequestRow) -> RequestAnswer:
    return {
        "request_id": str(row.request_id),
        "occurred_at": row.occurred_at.isoformat(),
        "cost_usd": usd_text(row.cost_pico),
        "attempts": [_attempt(event) for event in row.attempts],
    }


def _attempt(event: UsageEvent) -> AttemptAnswer:
    return {
        "attempt": event.attempt,
        "sku": event.sku,
        "supplier": event.supplier,
        "model": event.model,
        "outcome": event.outcome,
        "state": event.state,
        "usage_source": event.usage_source,
        "confidence": basis.CONFIDENCE.get(event.usage_source, ""),
        "price_version": event.price_version_id,
        "cost_usd": usd_text(event.tenant_cost_pico),
        "held": _held(event),
        "detail": _detail(event),
        "input_tokens": event.input_tokens,
        "cache_read_tokens": event.cache_read_tokens,
        "cache_write_5m_tokens": event.cache_write_5m_tokens,
        "cache_write_1h_tokens": event.cache_write_1h_tokens,
        "output_tokens": event.output_tokens,
        "reasoning_tokens": event.reasoning_tokens,
    }


def _true_up(found: TrueUp) -> TrueUpAnswer:
    """A count that came after the charge, what it gives back, and by which note; None until the
    next notes are posted, or where nothing is off."""
    return {
        "attempt": found.attempt,
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "given_back_usd": usd_text(found.given_back_pico),
        "note": found.note.number if found.note else None,
    }


def _detail(event: UsageEvent) -> DetailAnswer:
    """Without what it taught of its seller's tokenizer, which is for the house to estimate by."""
    kept = {name: each for name, each in event.detail.items() if name != "taught"}
    said = cast(DetailAnswer, kept)
    ranking = request_list.ranking_of(event)
    if ranking:
        said["ranking"] = ranking
    return said


def _held(event: UsageEvent) -> HeldAnswer | None:
    held = quarantine_notes.of(event)
    if held is None:
        return None
    return {
        "amount_usd": usd_text(held.amount_pico),
        "estimate_usd": usd_text(held.estimate_pico),
        "reason": held.reason,
        "settled_by": held.settled_by.isoformat(),
    }
