"""Reads of single requests for people: the newest, by filter, and one request whole.

Read only; sums are in `usage_sums`. Every function takes the tenant and answers nothing of
another. Pages are cut by time (keyset), so that a page costs the same however far back it lies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from billing.models import Entry, Transfer, UsageEvent

# No request has more attempts than this; a page reads at most as many events per request.
ATTEMPTS_MAX = 8
LIMIT_MAX = 500


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Empty fields do not filter. A request matches where one of its attempts does."""

    model: str = ""
    supplier: str = ""
    outcome: str = ""
    api_key_id: int | None = None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """All attempts of one request, in order; the last one is what the client got."""

    request_id: UUID
    occurred_at: datetime
    attempts: tuple[UsageEvent, ...]
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost_pico: int

    @property
    def last(self) -> UsageEvent:
        return self.attempts[-1]


@dataclass(frozen=True, slots=True)
class PostedTransfer:
    """A ledger transfer that carries some attempt of the request, with what else it carries.
    `entries` are those on the tenant's own accounts: what the house owes suppliers, and earns, is
    not the tenant's to see."""

    transfer: Transfer
    entries: tuple[Entry, ...]
    events: int


@dataclass(frozen=True, slots=True)
class RequestRecord:
    row: RequestRow
    transfers: tuple[PostedTransfer, ...]


def requests(
    tenant_id: int,
    *,
    filters: RequestFilter,
    before: datetime | None = None,
    limit: int = 50,
) -> list[RequestRow]:
    """The newest requests, newest first, older than `before`."""
    limit = min(limit, LIMIT_MAX)
    newest = _matching(tenant_id, filters, before).order_by("-occurred_at", "-pk")
    ids: dict[UUID, None] = {}
    for request_id in newest.values_list("request_id", flat=True)[: limit * ATTEMPTS_MAX]:
        ids[request_id] = None
        if len(ids) == limit:
            break
    events = UsageEvent.objects.filter(tenant_id=tenant_id, request_id__in=list(ids))
    return sorted(_rows(events), key=lambda row: (row.occurred_at, row.request_id), reverse=True)


def _matching(
    tenant_id: int, filters: RequestFilter, before: datetime | None
) -> QuerySet[UsageEvent]:
    found = UsageEvent.objects.filter(tenant_id=tenant_id)
    if before is not None:
        found = found.filter(occurred_at__lt=before)
    if filters.model:
        found = found.filter(model=filters.model)
    if filters.supplier:
        found = found.filter(supplier=filters.supplier)
    if filters.outcome:
        found = found.filter(outcome=filters.outcome)
    if filters.api_key_id is not None:
        found = found.filter(api_key_id=filters.api_key_id)
    return found


def _rows(events: Iterable[UsageEvent]) -> list[RequestRow]:
    by_request: dict[UUID, list[UsageEvent]] = {}
    for event in events:
        by_request.setdefault(event.request_id, []).append(event)
    return [_row(sorted(attempts, key=lambda e: e.attempt)) for attempts in by_request.values()]


def _row(attempts: Sequence[UsageEvent]) -> RequestRow:
    return RequestRow(
        request_id=attempts[0].request_id,
        occurred_at=attempts[0].occurred_at,
        attempts=tuple(attempts),
        input_tokens=sum(e.input_tokens for e in attempts if e.tenant_cost_pico)
        or attempts[-1].input_tokens,
        cache_read_tokens=sum(e.cache_read_tokens for e in attempts if e.tenant_cost_pico)
        or attempts[-1].cache_read_tokens,
        output_tokens=sum(e.output_tokens for e in attempts),
        cost_pico=sum(e.tenant_cost_pico for e in attempts),
    )


def one_request(tenant_id: int, request_id: UUID) -> RequestRecord | None:
    """One request with its attempts, their price versions and the transfers that posted them."""
    events = UsageEvent.objects.filter(tenant_id=tenant_id, request_id=request_id)
    rows = _rows(events.select_related("price_version", "transfer"))
    if not rows:
        return None
    transfers = {e.transfer_id: e.transfer for e in rows[0].attempts if e.transfer is not None}
    return RequestRecord(
        row=rows[0],
        transfers=tuple(_posted(tenant_id, t) for t in transfers.values() if t is not None),
    )


def _posted(tenant_id: int, transfer: Transfer) -> PostedTransfer:
    own = transfer.entries.filter(account__tenant_id=tenant_id)
    entries = own.select_related("account").order_by("pk")
    return PostedTransfer(
        transfer=transfer,
        entries=tuple(entries),
        events=UsageEvent.objects.filter(transfer=transfer).count(),
    )


def newest_event_id(tenant_id: int) -> int:
    """Grows with every event of the tenant that was drained; 0 before the first."""
    newest = UsageEvent.objects.filter(tenant_id=tenant_id).order_by("-pk").values_list("pk")
    found = newest.first()
    return 0 if found is None else int(found[0])
