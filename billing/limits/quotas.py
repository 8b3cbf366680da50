"""Spend caps of tenants, teams, keys, models, suppliers and sessions; rate limits of the first
three.

A spend register exists in Redis for each cap, and only for caps. A new cap begins with what its
window has spent already: posted in Postgres, plus debited and not yet posted. It is visible to the
data plane only after its register is right. Every change is written down (`audit`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict, Unpack
from zoneinfo import available_timezones

import redis
from django.db import connection as database
from django.db import transaction

from billing import audit, locks, registers
from billing.drain import metering
from billing.errors import LimitRefused, LockTimeout
from billing.holding import quota_registers, usage_stream
from billing.holding.quota_registers import CapRegister
from billing.kinds import Window
from billing.models import Quota, RateLimit, ScopeKind, ShardEpoch, Tenant
from billing.money import PICO_PER_NANO
from billing.redis.connection import connection, run_warm
from billing.redis.scripts import SEED

LOCK_WAIT_S: Final = 10.0
RATE_MAX: Final = 2_000_000_000
LIMIT_PICO_MAX: Final = 10**30
NAME_LENGTH_MAX: Final = 200
CALENDAR: Final = (Window.DAY, Window.WEEK, Window.MONTH)
OWNED_SCOPES: Final = (ScopeKind.TEAM, ScopeKind.KEY)
RateValues = Mapping[str, int | None]
OWN_LIMIT: Final = "a key does not loosen a limit that binds it"


class Rates(TypedDict, total=False):
    """The rate limits of a scope; one that is None or not named is none."""

    rpm: int | None
    tpm: int | None
    concurrency: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of one tenant: its own, its teams' and its keys'."""

    quotas: tuple[Quota, ...]
    rates: tuple[RateLimit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """What a spend cap is to be. Ids of tenants, teams and keys as text; sessions have their
    tenant's. In shadow it refuses nothing."""

    scope_kind: str
    scope_id: str
    window: str
    limit_pico: int
    shadow: bool = False


def limits_for(tenant: Tenant) -> Limits:
    quotas = Quota.objects.filter(tenant=tenant).select_related("tenant")
    return Limits(
        quotas=tuple(quotas.order_by("scope_kind", "scope_id", "pk")),
        rates=tuple(RateLimit.objects.filter(tenant=tenant).order_by("scope_kind", "scope_id")),
    )


def set_quota(
    *,
    tenant: Tenant,
    cap: Cap,
    actor: str,
    now: datetime,
    reason: str = "",
    may_loosen: bool = True,
    client: redis.Redis | None = None,
) -> Quota:
    """Set or change a spend cap; a raise that it has ends. Who may not loosen it is refused what
    lets more through. Takes the shard's lock to the end of the transaction; LimitRefused,
    RedisError, Cold and LockTimeout change nothing."""
    _check_cap(tenant, cap)
    client = client or connection()
    _catch_up(client, tenant.shard, now)
    with transaction.atomic():
        locks.shard_until_commit(tenant.shard, wait_s=LOCK_WAIT_S)
        known = Quota.objects.filter(
            tenant=tenant, scope_kind=cap.scope_kind, scope_id=cap.scope_id, window=cap.window
        ).first()
        if known is not None and not may_loosen and _loosens(known, cap):
            raise LimitRefused(OWN_LIMIT)
        if known is None and cap.scope_kind != ScopeKind.SESSION:
            _begin_register(client, tenant, _register_of(tenant, cap, now))
        quota, _ = Quota.objects.update_or_create(
            tenant=tenant,
            scope_kind=cap.scope_kind,
            scope_id=cap.scope_id,
            window=cap.window,
            defaults={
                "limit_pico": cap.limit_pico,
                "shadow": cap.shadow,
                "raised_pico": None,
                "raised_until": None,
                "limit_since": now if known is None or _moves(known, cap) else known.limit_since,
            },
        )
        _record("quota.set", quota, before=known, actor=actor, now=now, reason=reason)
    return quota


def _moves(known: Quota, cap: Cap) -> bool:
    """Whether the terms are others: a cap that is only said again has bound its window so far."""
    was_raised = known.raised_until is not None
    return was_raised or (int(known.limit_pico), known.shadow) != (cap.limit_pico, cap.shadow)


def _loosens(known: Quota, cap: Cap) -> bool:
    return cap.limit_pico > known.limit_pico or (cap.shadow and not known.shadow)


def raise_quota(
    *,
    tenant: Tenant,
    quota_id: int,
    limit_pico: int,
    until: datetime,
    actor: str,
    now: datetime,
    reason: str = "",
    may_loosen: bool = True,
) -> Quota:
    """Raise a cap until a date, after which it is what it was."""
    if not may_loosen:
        raise LimitRefused(OWN_LIMIT)
    if type(limit_pico) is not int or not 0 <= limit_pico < LIMIT_PICO_MAX:
        raise LimitRefused(f"not a spend limit: {limit_pico}")
    if until <= now:
        raise LimitRefused("a raise ends in the future")
    with transaction.atomic():
        quota = _locked(tenant, quota_id)
        if limit_pico <= quota.limit_pico:
            raise LimitRefused("a raise is above the limit; to lower a limit, set it")
        before = _stated(quota)
        quota.raised_pico, quota.raised_until, quota.limit_since = limit_pico, until, now
        quota.save(update_fields=["raised_pico", "raised_until", "limit_since"])
        _record("quota.raise", quota, before=before, actor=actor, now=now, reason=reason)
    return quota


def remove_quota(
    *, tenant: Tenant, quota_id: int, actor: str, now: datetime, may_loosen: bool = True
) -> None:
    """Lift a cap; its register goes with its window."""
    if not may_loosen:
        raise LimitRefused(OWN_LIMIT)
    with transaction.atomic():
        quota = _locked(tenant, quota_id)
        before = _stated(quota)
        quota.delete()
        audit.record(
            actor=actor,
            action="quota.remove",
            subject=str(quota),
            tenant=tenant,
            before=before,
            now=now,
        )


def _locked(tenant: Tenant, quota_id: int) -> Quota:
    quota = Quota.objects.select_for_update().filter(tenant=tenant, pk=quota_id).first()
    if quota is None:
        raise LimitRefused("there is no such budget any more")
    return quota


class CapFacts(TypedDict):
    """What the audit log keeps of a cap."""

    limit_pico: int
    shadow: bool
    raised_pico: int | None
    raised_until: str | None


def _record(
    action: str,
    quota: Quota,
    *,
    before: Quota | CapFacts | None,
    actor: str,
    now: datetime,
    reason: str,
) -> None:
    audit.record(
        actor=actor,
        action=action,
        subject=str(quota),
        tenant=quota.tenant,
        before=_stated(before) if isinstance(before, Quota) else before,
        after=_stated(quota),
        reason=reason,
        now=now,
    )


def _stated(quota: Quota) -> CapFacts:
    return {
        "limit_pico": int(quota.limit_pico),
        "shadow": quota.shadow,
        "raised_pico": None if quota.raised_pico is None else int(quota.raised_pico),
        "raised_until": None if quota.raised_until is None else quota.raised_until.isoformat(),
    }


def change_time_zone(
    *,
    tenant: Tenant,
    zone: str,
    actor: str,
    now: datetime,
    client: redis.Redis | None = None,
) -> None:
    """Move a tenant's days, weeks and months to another zone. The windows that `now` is in there
    begin with what was spent in them; requests under way keep the windows they have."""
    if zone not in available_timezones():
        raise LimitRefused(f"no such time zone: {zone}")
    client = client or connection()
    _catch_up(client, tenant.shard, now)
    with transaction.atomic():
        locks.shard_until_commit(tenant.shard, wait_s=LOCK_WAIT_S)
        locked = Tenant.objects.select_for_update().get(pk=tenant.pk)
        before, locked.time_zone = locked.time_zone, zone
        if before == zone:
            return
        caps = Quota.objects.filter(tenant=tenant, window__in=CALENDAR)
        caps = caps.exclude(scope_kind=ScopeKind.SESSION)
        for quota in caps:
            _begin_register(client, locked, _register_of(locked, quota, now))
        # The windows that are now had other limits for what was spent in them before.
        caps.update(limit_since=now)
        locked.save(update_fields=["time_zone"])
        audit.record(
            actor=actor,
            action="tenant.time_zone",
            subject=str(tenant),
            tenant=locked,
            before={"time_zone": before},
            after={"time_zone": zone},
            now=now,
        )
    tenant.time_zone = zone


def _catch_up(client: redis.Redis, shard: int, now: datetime) -> None:
    """Post what has arrived, so that a new cap knows of it at once and not within the second.
    Inside somebody's transaction nothing can be posted."""
    if not database.in_atomic_block:
        with locks.shard(shard, wait_s=LOCK_WAIT_S) as taken:
            if taken:
                metering.drain(client, shard, now=now)


def _register_of(tenant: Tenant, cap: Cap | Quota, now: datetime) -> CapRegister:
    return quota_registers.register_of(
        tenant.pk,
        kind=cap.scope_kind,
        scope_id=cap.scope_id,
        window=cap.window,
        zone=tenant.time_zone,
        now=now,
    )


def _begin_register(client: redis.Redis, tenant: Tenant, register: CapRegister) -> None:
    if usage_stream.has_pending(client, tenant.shard):
        raise LockTimeout("the last drain was cut off; the next one clears it within seconds")
    nano, pico = divmod(register.spent_pico, PICO_PER_NANO)
    tag = registers.tag_of_shard(tenant.shard)
    epoch = ShardEpoch.objects.filter(shard=tenant.shard).values_list("epoch", flat=True).first()
    call = SEED.call(
        {
            "epoch_key": registers.epoch_key(tag),
            "stream_key": registers.stream_key(tag),
            "spend_key": register.key,
            "epoch": epoch or "",
            "last_posted": usage_stream.last_delivered(client, tenant.shard),
            "nano": nano,
            "pico": pico,
            "lasts_ms": register.lasts_ms,
        }
    )
    run_warm(client, call)


def _check_cap(tenant: Tenant, cap: Cap) -> None:
    if type(cap.limit_pico) is not int or not 0 <= cap.limit_pico < LIMIT_PICO_MAX:
        raise LimitRefused(f"not a spend limit: {cap.limit_pico}")
    if cap.scope_kind not in ScopeKind.values:
        raise LimitRefused(f"no such scope: {cap.scope_kind}")
    if cap.window not in Window.values():
        raise LimitRefused(f"no such window: {cap.window}")
    if (cap.scope_kind == ScopeKind.SESSION) != (cap.window == Window.SESSION):
        raise LimitRefused("sessions, and only they, are capped per session")
    if cap.shadow and cap.scope_kind == ScopeKind.SESSION:
        raise LimitRefused("a cap of sessions has no shadow mode")
    if cap.scope_kind in (ScopeKind.MODEL, ScopeKind.PROVIDER):
        is_name = cap.scope_id.isprintable() and 0 < len(cap.scope_id) <= NAME_LENGTH_MAX
        if not is_name:
            raise LimitRefused(f"not the name of a {cap.scope_kind}")
        return
    if not cap.scope_id.isascii() or not cap.scope_id.isdecimal():
        raise LimitRefused(f"not the id of a {cap.scope_kind}: {cap.scope_id}")
    _check_scope(tenant, cap.scope_kind, int(cap.scope_id))


def _check_scope(tenant: Tenant, kind: str, scope_id: int) -> None:
    if kind in (ScopeKind.TENANT, ScopeKind.SESSION) and scope_id != tenant.pk:
        raise LimitRefused("a tenant's limit belongs to the tenant itself")
    if kind not in OWNED_SCOPES:
        return
    others = (
        Quota.objects.filter(scope_kind=kind, scope_id=str(scope_id)),
        RateLimit.objects.filter(scope_kind=kind, scope_id=scope_id),
    )
    if any(rows.exclude(tenant=tenant).exists() for rows in others):
        raise LimitRefused(f"{kind} {scope_id} belongs to another tenant")


def set_rate_limit(
    *,
    tenant: Tenant,
    scope_kind: str,
    scope_id: int,
    actor: str,
    now: datetime,
    may_loosen: bool = True,
    **stated: Unpack[Rates],
) -> RateLimit | None:
    """Set all three rate limits of a scope; None lifts one, and all None remove the row. Who may
    not loosen them is refused what lets more through."""
    rates = {
        "rpm": stated.get("rpm"),
        "tpm": stated.get("tpm"),
        "concurrency": stated.get("concurrency"),
    }
    with transaction.atomic():
        rows = RateLimit.objects.select_for_update()
        known = rows.filter(tenant=tenant, scope_kind=scope_kind, scope_id=scope_id)
        if not may_loosen and _lets_more(known.values(*rates).first() or {}, rates):
            raise LimitRefused(OWN_LIMIT)
        return _write_rates(tenant, (scope_kind, scope_id), rates, actor=actor, now=now)


def _write_rates(
    tenant: Tenant, scope: tuple[str, int], values: RateValues, *, actor: str, now: datetime
) -> RateLimit | None:
    scope_kind, scope_id = scope
    if scope_kind not in (ScopeKind.TENANT, *OWNED_SCOPES):
        raise LimitRefused(f"no rates are counted for a {scope_kind}")
    _check_scope(tenant, scope_kind, scope_id)
    for name, value in values.items():
        if value is not None and (type(value) is not int or not 0 <= value <= RATE_MAX):
            raise LimitRefused(f"not a limit for {name}: {value}")
    limit: RateLimit | None = None
    rows = RateLimit.objects.filter(tenant=tenant, scope_kind=scope_kind, scope_id=scope_id)
    before = rows.values(*values).first()
    if all(value is None for value in values.values()):
        rows.delete()
    else:
        limit, _ = RateLimit.objects.update_or_create(
            scope_kind=scope_kind, scope_id=scope_id, defaults={"tenant": tenant, **values}
        )
    if before is not None or limit is not None:
        audit.record(
            actor=actor,
            action="rate_limit.set" if limit else "rate_limit.remove",
            subject=f"{scope_kind} {scope_id}",
            tenant=tenant,
            before=before,
            after=values if limit else None,
            now=now,
        )
    return limit


def _lets_more(before: RateValues, after: RateValues) -> bool:
    """Whether some rate would be lifted, or higher than it was."""
    limits = [(limit, after[name]) for name, limit in before.items() if limit is not None]
    return any(wanted is None or wanted > limit for limit, wanted in limits)
