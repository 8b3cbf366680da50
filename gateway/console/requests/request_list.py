"""The list of requests: served and refused ones together, newest first, filtered from the URL."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from django.utils.dateparse import parse_datetime

from billing import outcomes
from billing.books import usage_queries
from billing.books.usage_queries import RequestFilter, RequestRow
from billing.models import UsageEvent
from gateway.console.requests import advice, refusal_queries
from gateway.console.requests.advice import Advice
from gateway.models import Refusal
from gateway.routing import explain
from gateway.routing.explained import Explanation

PAGE_SIZE: Final = 50


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list. A refused request has no attempt, no tokens and costs nothing.

    `help` is what a person can do where it was not `served`; a refusal says its reason."""

    request_id: UUID
    at: datetime
    model: str
    served_by: str
    tried_before: tuple[str, ...]
    input_tokens: int | None
    cached_share: float
    output_tokens: int | None
    cost_pico: int
    ttft_ms: float | None
    output_tps: float | None
    outcome: str
    tone: str
    reason: str = ""
    help: Advice | None = None

    @property
    def served(self) -> bool:
        return self.help is None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the URL asks for."""

    model: str
    supplier: str
    outcome: str
    key_id: int | None
    before: UUID | None

    @property
    def is_filtered(self) -> bool:
        return bool(self.model or self.supplier or self.outcome or self.key_id)


@dataclass(frozen=True, slots=True)
class RequestPage:
    rows: list[Listed]
    asked: Asked
    next_query: str


def asked_in(parameters: Mapping[str, str]) -> Asked:
    """Values that do not parse are left out: a link of yesterday still opens."""
    key = parameters.get("key", "")
    return Asked(
        model=parameters.get("model", ""),
        supplier=parameters.get("supplier", ""),
        outcome=parameters.get("outcome", ""),
        key_id=int(key) if key.isdecimal() and len(key) < 19 else None,
        before=place_in(parameters.get("before", "")),
    )


def place_in(text: str) -> UUID | None:
    """Where a page ended: the id of its last request, or a moment; None where it is neither."""
    try:
        return UUID(text)
    except ValueError:
        pass
    try:
        moment = parse_datetime(text)
        return usage_queries.first_id_of(moment) if moment is not None and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def read(tenant_id: int, asked: Asked, *, limit: int = PAGE_SIZE) -> RequestPage:
    rows = _served(tenant_id, asked, limit + 1) + _refused(tenant_id, asked, limit + 1)
    rows.sort(key=lambda row: row.request_id, reverse=True)
    has_more = len(rows) > limit
    rows = rows[:limit]
    return RequestPage(rows=rows, asked=asked, next_query=_next(asked, rows) if has_more else "")


def _next(asked: Asked, rows: list[Listed]) -> str:
    parts = {
        "model": asked.model,
        "supplier": asked.supplier,
        "outcome": asked.outcome,
        "key": str(asked.key_id or ""),
        "before": str(rows[-1].request_id),
    }
    return urlencode({name: value for name, value in parts.items() if value})


def _served(tenant_id: int, asked: Asked, limit: int) -> list[Listed]:
    filters = RequestFilter(
        model=asked.model,
        supplier=asked.supplier,
        outcome=asked.outcome,
        api_key_id=asked.key_id,
    )
    found = usage_queries.requests(tenant_id, filters=filters, before=asked.before, limit=limit)
    return [listed(row) for row in found]


def _refused(tenant_id: int, asked: Asked, limit: int) -> list[Listed]:
    if asked.supplier or asked.outcome not in ("", outcomes.REFUSED):
        return []
    found = refusal_queries.newest(
        tenant_id,
        model=asked.model,
        api_key_id=asked.key_id,
        before=asked.before,
        limit=limit,
    )
    return [_listed_refusal(refusal) for refusal in found]


def listed(row: RequestRow) -> Listed:
    last = row.last
    outcome, tone = outcome_of(last, len(row.attempts))
    return Listed(
        request_id=row.request_id,
        at=row.occurred_at,
        model=last.model,
        served_by=last.sku,
        tried_before=tuple(e.supplier for e in row.attempts[:-1]),
        input_tokens=row.input_tokens,
        cached_share=row.cache_read_tokens / row.input_tokens if row.input_tokens else 0.0,
        output_tokens=row.output_tokens,
        cost_pico=row.cost_pico,
        ttft_ms=last.detail.get("ttft_ms"),
        output_tps=last.detail.get("output_tps"),
        outcome=outcome,
        tone=tone,
        help=advice.REPEAT if outcomes.of(last.outcome).broke_off else None,
    )


def ranking_of(first: UsageEvent) -> Explanation | None:
    """Why this offer: who was considered for the request, from the record of its first attempt."""
    record = first.detail.get("ranking")
    return explain.told(record, first.detail.get("policy", "")) if record else None


def outcome_of(event: UsageEvent, attempts: int) -> tuple[str, str]:
    if event.state == UsageEvent.State.QUARANTINED:
        return "in review", "warn"
    ended = outcomes.of(event.outcome)
    if event.outcome == outcomes.OK and attempts > 1:
        return f"{ended.words} · attempt {attempts}", "warn"
    return ended.words, ended.tone


def _listed_refusal(refusal: Refusal) -> Listed:
    return Listed(
        request_id=refusal.request_id,
        at=refusal.occurred_at,
        model=refusal.model,
        served_by="",
        tried_before=(),
        input_tokens=None,
        cached_share=0.0,
        output_tokens=None,
        cost_pico=0,
        ttft_ms=None,
        output_tps=None,
        outcome=f"{refusal.status} · {refusal.code.replace('_', ' ')}",
        tone="warn",
        reason=refusal.message,
        help=advice.on(refusal.status, refusal.code),
    )
