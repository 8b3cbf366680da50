"""The registers of spend caps as Postgres has them, and which of them an event counts in."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db.models import BigIntegerField, Case, F, QuerySet, Sum, When

from billing import registers
from billing.models import Quota, ScopeKind, UsageDay, UsageEvent
from billing.money import PICO_PER_NANO
from billing.registers import Span
from billing.usage_stream import StreamEntry

SCOPE_COLUMN: Final = {
    ScopeKind.TENANT: "tenant_id",
    ScopeKind.TEAM: "team_id",
    ScopeKind.KEY: "api_key_id",
    ScopeKind.MODEL: "model",
    ScopeKind.PROVIDER: "supplier",
}
# An attempt begins within hours of its request, which decides the window.
ATTEMPT_SPAN: Final = timedelta(days=1)

# What a drained event is worth in Redis: its cost, or what was debited while it is in quarantine.
DEBITED_PICO: Final = Case(
    When(state=UsageEvent.State.QUARANTINED, then=F("charged_nano") * PICO_PER_NANO),
    default=F("tenant_cost_pico"),
    output_field=BigIntegerField(),
)


@dataclass(frozen=True, slots=True)
class CapRegister:
    """A cap's register in Redis as Postgres has it; `lasts_ms` is 0 where it stays for good."""

    key: str
    spent_pico: int
    lasts_ms: int


def register_of(
    tenant_id: int, *, kind: str, scope_id: str, window: str, zone: str, now: datetime
) -> CapRegister:
    """The register of a cap in the window that `now` is in."""
    now_ms = int(now.timestamp() * 1000)
    span = registers.span_of(window, now_ms, zone)
    key = registers.spend_key(
        registers.shard_tag(tenant_id),
        tenant_id,
        kind=kind,
        scope=registers.scope_part(scope_id),
        bucket=span.bucket,
    )
    return CapRegister(
        key=key,
        spent_pico=spent_pico(tenant_id, kind=kind, scope_id=scope_id, span=span),
        lasts_ms=span.goes_at_ms - now_ms if span.goes_at_ms else 0,
    )


def registers_of(tenant_ids: Sequence[int], now: datetime) -> Iterator[CapRegister]:
    """The registers of every cap of these tenants."""
    for quota in _with_registers(tenant_ids):
        yield register_of(
            quota.tenant_id,
            kind=quota.scope_kind,
            scope_id=quota.scope_id,
            window=quota.window,
            zone=quota.tenant.time_zone,
            now=now,
        )


def _with_registers(tenant_ids: Iterable[int]) -> "QuerySet[Quota]":
    """Sessions have a register each, whether anything caps them or not."""
    found = Quota.objects.filter(tenant_id__in=list(tenant_ids)).select_related("tenant")
    return found.exclude(scope_kind=ScopeKind.SESSION)


def spent_pico(tenant_id: int, *, kind: str, scope_id: str, span: Span) -> int:
    """What Redis must have for the drained events of a scope in a window: what posted events
    cost, and what quarantined ones were debited. Days (UTC) within the window are read from their
    sums, and only what is left at its ends from events."""
    scope = {"tenant_id": tenant_id, SCOPE_COLUMN[ScopeKind(kind)]: scope_id}
    days = UsageDay.objects.filter(**scope)
    if not span.ends_ms:
        return _sum_of_days(days)
    first_ms = -(-span.begins_ms // registers.MS_PER_DAY) * registers.MS_PER_DAY
    after_ms = span.ends_ms // registers.MS_PER_DAY * registers.MS_PER_DAY
    events = UsageEvent.objects.filter(**scope)
    if first_ms >= after_ms:
        return sum_of_debits(_between(events, span.begins_ms, span.ends_ms))
    whole = days.filter(day__gte=_utc(first_ms).date(), day__lt=_utc(after_ms).date())
    return (
        sum_of_debits(_between(events, span.begins_ms, first_ms))
        + _sum_of_days(whole)
        + sum_of_debits(_between(events, after_ms, span.ends_ms))
    )


def _sum_of_days(days: "QuerySet[UsageDay]") -> int:
    return int(days.aggregate(total=Sum("debited_pico"))["total"] or 0)


def sum_of_debits(rows: "QuerySet[UsageEvent]") -> int:
    found = rows.aggregate(total=Sum(DEBITED_PICO))
    return int(found["total"] or 0)


def _between(
    events: "QuerySet[UsageEvent]", begins_ms: int, ends_ms: int
) -> "QuerySet[UsageEvent]":
    """By the time inside the request's id; the wider spans of day and time let indexes serve."""
    if begins_ms == ends_ms:
        return events.none()
    begins, ends = _utc(begins_ms), _utc(ends_ms)
    first, after = registers.ids_between(begins_ms, ends_ms)
    return events.filter(
        request_id__gte=first,
        request_id__lt=after,
        day__range=(begins.date(), ends.date()),
        occurred_at__gte=begins - ATTEMPT_SPAN,
        occurred_at__lt=ends + ATTEMPT_SPAN,
    )


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, tz=UTC)


Scope = tuple[int, str, str]  # tenant, kind, id
Window = tuple[str, str]  # window, time zone


@dataclass(frozen=True, slots=True)
class QuotaRegisters:
    """The caps that exist, by scope."""

    tag: str
    windows: dict[Scope, list[Window]]
    # Most events of a batch ask the same as one before them.
    _answers: dict[tuple[object, ...], tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, tenants: Iterable[int], shard: int) -> "QuotaRegisters":
        windows: dict[Scope, list[Window]] = defaultdict(list)
        for quota in _with_registers(tenants):
            scope = (quota.tenant_id, quota.scope_kind, quota.scope_id)
            windows[scope].append((quota.window, quota.tenant.time_zone))
        return cls(registers.tag_of_shard(shard), dict(windows))

    def missing(self, entry: StreamEntry) -> tuple[str, ...]:
        """Registers the event belongs in that its hold did not name: a cap set after it."""
        if not self.windows:
            return ()
        event = entry.event
        scopes = (event.team, event.key, event.model, event.supplier)
        at_ms = registers.request_ms(event.request_id)
        alike = (event.tenant, scopes, at_ms // registers.MS_PER_SLICE, entry.keys)
        if alike not in self._answers:
            self._answers[alike] = tuple(self._missing(entry, at_ms))
        return self._answers[alike]

    def _missing(self, entry: StreamEntry, at_ms: int) -> Iterator[str]:
        event = entry.event
        scopes = (
            (ScopeKind.TENANT, event.tenant),
            (ScopeKind.TEAM, event.team),
            (ScopeKind.KEY, event.key),
            (ScopeKind.MODEL, event.model),
            (ScopeKind.PROVIDER, event.supplier),
        )
        for kind, scope_id in scopes:
            for window, zone in self.windows.get((event.tenant, kind, str(scope_id)), ()):
                key = registers.spend_key(
                    self.tag,
                    event.tenant,
                    kind=kind,
                    scope=registers.scope_part(str(scope_id)),
                    bucket=registers.span_of(window, at_ms, zone).bucket,
                )
                if key not in entry.keys:
                    yield key
