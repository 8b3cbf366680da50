"""The registers of spend caps as Postgres has them, and which of them an event counts in."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from django.db import connection
from django.db.models import QuerySet

from billing import registers
from billing.holding import key_makers
from billing.holding.usage_stream import StreamEntry
from billing.models import Quota, ScopeKind
from billing.registers import Span

SCOPE_COLUMN: Final = {
    ScopeKind.TENANT: "tenant_id",
    ScopeKind.TEAM: "team_id",
    ScopeKind.KEY: "api_key_id",
    ScopeKind.MODEL: "model",
    ScopeKind.PROVIDER: "supplier",
}

DAYS: Final = """
    SELECT tenant_id, team_id, api_key_id, model, supplier, debited_pico
    FROM billing_usageday WHERE tenant_id = ANY(%(tenants)s)
"""
WITHIN: Final = " AND day >= %(first)s AND day < %(after)s"
# The request decides the window, by the time inside its id. A drained event is worth its cost, or
# what was debited while it is in quarantine.
EVENTS: Final = """
    UNION ALL SELECT tenant_id, team_id, api_key_id, model, supplier, CASE state
        WHEN 'quarantined' THEN 1000::numeric * charged_nano ELSE tenant_cost_pico END
    FROM billing_usageevent WHERE tenant_id = ANY(%(tenants)s)
        AND request_id >= %({0}_id)s::uuid AND request_id < %({0}_end)s::uuid
"""
USED: Final = """
    WITH used AS MATERIALIZED (
        SELECT tenant_id, team_id, api_key_id, model, supplier, sum(debited_pico) AS debited_pico
        FROM ({parts}) parts GROUP BY 1, 2, 3, 4, 5
    ) {by_scope}
"""
BY_SCOPE: Final = """
    SELECT tenant_id, '{kind}', {column}::text, sum(debited_pico) FROM used
    WHERE {column} IS NOT NULL GROUP BY tenant_id, {column}
"""

Scope = tuple[int, str, str]  # tenant, kind, id
Window = tuple[str, str]  # window, time zone


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
    span = _span_at(window, zone, now)
    scope = (tenant_id, kind, scope_id)
    return _register(scope, span, _used_by(scope, span), now)


def highest_limit(quota: Quota, now: datetime) -> int:
    """The most that the window which `now` is in has been allowed under this cap's terms."""
    span = _span_at(quota.window, quota.tenant.time_zone, now)
    if quota.raised_until is not None and registers.moment_ms(quota.raised_until) > span.begins_ms:
        return int(quota.raised_pico or 0)
    return int(quota.limit_pico)


def bound_among(limited: Mapping[Quota, datetime | None], now: datetime) -> set[int]:
    """Which caps, given since when each has its limit, surely bound requests of the window that
    `now` is in: all of them where it began later, else those of the days (UTC) after. A limit of an
    unknown moment is older than any window that ends. Caps that ask for the same days are read
    together."""
    bound: set[int] = set()
    unsure: dict[Span, list[Quota]] = defaultdict(list)
    for quota, since in limited.items():
        span = _span_at(quota.window, quota.tenant.time_zone, now)
        since_ms = registers.moment_ms(since) if since else 0
        if span.ends_ms and since_ms <= span.begins_ms:
            bound.add(int(quota.pk))
        elif since:
            unsure[_whole_days(span, since_ms, now)].append(quota)
    makers = _makers_of(limited)
    for days, members in unsure.items():
        if days.begins_ms < days.ends_ms:
            spent = _spent(members, makers, days)
            bound |= {int(quota.pk) for quota in members if spent.get(_scope_of(quota), 0) > 0}
    return bound


def _whole_days(span: Span, since_ms: int, now: datetime) -> Span:
    begins_ms = _day_after(max(since_ms, span.begins_ms))
    ends_ms = _day_before(span.ends_ms or registers.moment_ms(now) + registers.MS_PER_DAY)
    return Span("", begins_ms, ends_ms, 0)


def _used_by(scope: Scope, span: Span) -> int:
    tenant_id, kind, _ = scope
    own = used([tenant_id], [kind], span)
    makers = key_makers.lines([tenant_id]) if kind == ScopeKind.KEY else {}
    return (own | _with_made_keys(makers, own)).get(scope, 0)


def of_quotas(quotas: Iterable[Quota], now: datetime) -> dict[int, CapRegister]:
    """The registers of caps by their id. Caps of one window and time zone are read together:
    however many of them a tenant has, its usage is read once."""
    alike: dict[Window, list[Quota]] = defaultdict(list)
    for quota in quotas:
        alike[quota.window, quota.tenant.time_zone].append(quota)
    makers = _makers_of(quota for members in alike.values() for quota in members)
    found = {}
    for (window, zone), members in alike.items():
        span = _span_at(window, zone, now)
        spent = _spent(members, makers, span)
        for quota in members:
            scope = _scope_of(quota)
            found[int(quota.pk)] = _register(scope, span, spent.get(scope, 0), now)
    return found


def _makers_of(quotas: Iterable[Quota]) -> Mapping[tuple[int, int], tuple[int, ...]]:
    """Who made which key, the same in every window."""
    of_keys = {quota.tenant_id for quota in quotas if quota.scope_kind == ScopeKind.KEY}
    return key_makers.lines(of_keys) if of_keys else {}


def _spent(
    quotas: Collection[Quota], makers: Mapping[tuple[int, int], tuple[int, ...]], span: Span
) -> dict[Scope, int]:
    own = used({q.tenant_id for q in quotas}, {q.scope_kind for q in quotas}, span)
    return own | _with_made_keys(makers, own)


def registers_of(tenant_ids: Sequence[int], now: datetime) -> Iterable[CapRegister]:
    """The registers of every cap of these tenants."""
    return of_quotas(with_registers(tenant_ids), now).values()


def with_registers(tenant_ids: Iterable[int]) -> "QuerySet[Quota]":
    """Sessions have a register each, whether anything caps them or not."""
    found = Quota.objects.filter(tenant_id__in=list(tenant_ids)).select_related("tenant")
    return found.exclude(scope_kind=ScopeKind.SESSION)


def _scope_of(quota: Quota) -> Scope:
    return quota.tenant_id, quota.scope_kind, quota.scope_id


def _span_at(window: str, zone: str, now: datetime) -> Span:
    return registers.span_of(window, registers.moment_ms(now), zone)


def _register(scope: Scope, span: Span, spent_pico: int, now: datetime) -> CapRegister:
    tenant_id, kind, scope_id = scope
    key = registers.spend_key(
        registers.shard_tag(tenant_id),
        tenant_id,
        kind=kind,
        scope=registers.scope_part(scope_id),
        bucket=span.bucket,
    )
    lasts_ms = span.goes_at_ms - registers.moment_ms(now) if span.goes_at_ms else 0
    return CapRegister(key, spent_pico, lasts_ms)


def used(tenants: Collection[int], kinds: Collection[str], span: Span) -> dict[Scope, int]:
    """What Redis must have for the drained events of every scope of these kinds in a window: what
    posted events cost, and what quarantined ones were debited. Days (UTC) within the window are
    read from their sums, and only what is left at its ends from events."""
    parts, arguments = _parts(span)
    by_scope = " UNION ALL ".join(
        BY_SCOPE.format(kind=kind, column=SCOPE_COLUMN[ScopeKind(kind)]) for kind in sorted(kinds)
    )
    with connection.cursor() as cursor:
        sql = USED.format(parts=parts, by_scope=by_scope)
        cursor.execute(sql, arguments | {"tenants": list(tenants)})
        found = {
            (tenant_id, kind, scope_id): int(pico)
            for tenant_id, kind, scope_id, pico in cursor.fetchall()
        }
    return found


def _with_made_keys(
    makers: Mapping[tuple[int, int], tuple[int, ...]], own: Mapping[Scope, int]
) -> dict[Scope, int]:
    """What keys used together with the keys that they made."""
    found: dict[Scope, int] = {}
    for (tenant_id, made), line in makers.items():
        used_by_made = own.get((tenant_id, ScopeKind.KEY, str(made)), 0)
        for maker in line:
            scope = (tenant_id, ScopeKind.KEY.value, str(maker))
            found[scope] = found.get(scope, own.get(scope, 0)) + used_by_made
    return found


def _parts(span: Span) -> tuple[str, dict[str, date | str]]:
    """The whole days of a window, and the parts of days at its ends."""
    if not span.ends_ms:
        return DAYS, {}
    first_ms, after_ms = _day_after(span.begins_ms), _day_before(span.ends_ms)
    first, after = registers.at_moment(first_ms), registers.at_moment(after_ms)
    arguments: dict[str, date | str] = {"first": first.date(), "after": after.date()}
    sql = DAYS + WITHIN
    if first_ms >= after_ms:
        ends = {"whole": (span.begins_ms, span.ends_ms)}
        arguments["after"] = arguments["first"]
    else:
        ends = {"head": (span.begins_ms, first_ms), "tail": (after_ms, span.ends_ms)}
    for name, (begins_ms, ends_ms) in ends.items():
        if begins_ms < ends_ms:
            sql += EVENTS.format(name)
            arguments |= _between(name, begins_ms, ends_ms)
    return sql, arguments


def _day_after(at_ms: int) -> int:
    """The first midnight (UTC) that is not before."""
    return -(-at_ms // registers.MS_PER_DAY) * registers.MS_PER_DAY


def _day_before(at_ms: int) -> int:
    return at_ms // registers.MS_PER_DAY * registers.MS_PER_DAY


def _between(name: str, begins_ms: int, ends_ms: int) -> dict[str, str]:
    first, after = registers.ids_between(begins_ms, ends_ms)
    return {f"{name}_id": first, f"{name}_end": after}


@dataclass(frozen=True, slots=True)
class QuotaRegisters:
    """The caps that exist, by scope."""

    tag: str
    windows: dict[Scope, list[Window]]
    makers: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    # Most events of a batch ask the same as one before them.
    _answers: dict[tuple[object, ...], tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, tenants: Iterable[int], shard: int) -> "QuotaRegisters":
        windows: dict[Scope, list[Window]] = defaultdict(list)
        for quota in with_registers(tenants):
            windows[_scope_of(quota)].append((quota.window, quota.tenant.time_zone))
        capped = {tenant for tenant, kind, _ in windows if kind == ScopeKind.KEY}
        makers = key_makers.lines(capped) if capped else {}
        return cls(registers.tag_of_shard(shard), dict(windows), makers)

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
            *((ScopeKind.KEY, maker) for maker in self.makers.get((event.tenant, event.key), ())),
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
