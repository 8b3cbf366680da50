"""Reads of single requests for people: the newest, by filter, and one request whole.

Read only; sums are in `usage_sums`. Every function takes the tenant and answers nothing of
another. Pages are cut by request id, which begins with the moment of admission: so all attempts of
a request stand together, nothing is lost or said twice where many requests share a millisecond, and
a page costs the same however far back it lies.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final
from uuid import UUID

from django.db.models import QuerySet, Sum

from billing import registers
from billing.models import Entry, Transfer, TrueUp, UsageDay, UsageEvent

# A UUIDv7 begins with 48 bits of milliseconds.
ID_MS_MAX: Final = 2**48 - 1
# No request has more attempts than this.
ATTEMPTS_MAX: Final = 8
LIMIT_MAX: Final = 501
NEVER: Final = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Empty fields do not filter. A request matches where one of its attempts does."""

    model: str = ""
    supplier: str = ""
    outcome: str = ""
    api_key_id: int | None = None

    @property
    def of_rollups(self) -> dict[str, str | int | None]:
        """Those that the rollups tell apart, too."""
        return {"model": self.model, "supplier": self.supplier, "api_key_id": self.api_key_id}


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
    true_ups: Mapping[int, TrueUp]  # by attempt: counts that came after the charge


def first_id_of(moment: datetime) -> UUID:
    """The least id that a request of then or later can have."""
    return UUID(registers.least_id(min(max(registers.moment_ms(moment), 0), ID_MS_MAX)))


def requests(
    tenant_id: int,
    *,
    filters: RequestFilter,
    before: UUID | None = None,
    limit: int = 50,
) -> list[RequestRow]:
    """The newest requests, newest first, whose ids are smaller than `before`."""
    limit = min(limit, LIMIT_MAX)
    newest = _matching(tenant_id, filters, before, limit).order_by("-request_id")
    ids = list(newest.values_list("request_id", flat=True).distinct()[:limit])
    events = UsageEvent.objects.filter(tenant_id=tenant_id, request_id__in=ids)
    return sorted(_rows(events), key=lambda row: row.request_id, reverse=True)


def _matching(
    tenant_id: int, filters: RequestFilter, before: UUID | None, limit: int
) -> QuerySet[UsageEvent]:
    found = UsageEvent.objects.filter(tenant_id=tenant_id)
    if before is not None:
        found = found.filter(request_id__lt=before)
    if filters.outcome:
        found = found.filter(outcome=filters.outcome)
    chosen = {name: value for name, value in filters.of_rollups.items() if value}
    if len(chosen) > 1 and not filters.outcome:
        found = found.filter(request_id__gte=_reached(tenant_id, chosen, before, limit))
    return found.filter(**chosen)


def _reached(
    tenant_id: int, chosen: Mapping[str, str | int], before: UUID | None, limit: int
) -> UUID:
    """Back to where the page reaches. No index is of two filters at once; the rollups know on
    which days both hold, so that nothing is looked for where there is none."""
    days = UsageDay.objects.filter(tenant_id=tenant_id, attempts__gt=0, **chosen)
    if before is not None:
        days = days.filter(day__lte=day_of(before))
    attempts, reached = 0, NEVER
    for day, count in days.order_by("-day").values_list("day").annotate(sum=Sum("attempts")):
        if attempts >= limit * ATTEMPTS_MAX:
            break
        reached = first_id_of(datetime.combine(day, time(), UTC))
        # Of the cursor's own day only some are older.
        attempts += count if before is None or day < day_of(before) else 0
    return reached


def day_of(request_id: UUID) -> date:
    """The day (UTC) of a request's admission, as its id says."""
    return registers.request_moment(str(request_id)).date()


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
        true_ups=_true_ups(tenant_id, request_id),
        transfers=tuple(_posted(tenant_id, t) for t in transfers.values() if t is not None),
    )


def _true_ups(tenant_id: int, request_id: UUID) -> dict[int, TrueUp]:
    found = TrueUp.objects.filter(tenant_id=tenant_id, request_id=request_id)
    return {each.attempt: each for each in found.select_related("note")}


def _posted(tenant_id: int, transfer: Transfer) -> PostedTransfer:
    own = transfer.entries.filter(account__tenant_id=tenant_id)
    entries = own.select_related("account").order_by("pk")
    return PostedTransfer(
        transfer=transfer,
        entries=tuple(entries),
        events=UsageEvent.objects.filter(transfer=transfer).count(),
    )


def arrival_mark(tenant_id: int) -> str:
    """Changes with every event of the tenant that was drained: it came with a transfer, or into
    quarantine."""
    held = UsageEvent.objects.filter(tenant_id=tenant_id, state=UsageEvent.State.QUARANTINED)
    found = (Transfer.objects.filter(tenant_id=tenant_id), held)
    newest = (rows.order_by("-pk").values_list("pk", flat=True).first() or 0 for rows in found)
    return "-".join(map(str, newest))
