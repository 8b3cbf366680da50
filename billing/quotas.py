"""Spend caps and rate limits of tenants, teams and keys.

A spend register exists in Redis for each cap, and only for caps. A new cap begins with what its
window has spent already: posted in Postgres, plus debited and not yet posted. It is visible to the
data plane only after its register is right. Callers tell the data plane to look (the snapshot
signal); without it the limit is seen a few seconds later.
"""

from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import redis
from django.db import connection as database
from django.db import transaction
from django.db.models import BigIntegerField, Case, F, QuerySet, Sum, When

from billing import locks, metering, registers, usage_stream
from billing.errors import LimitRefused, LockTimeout
from billing.lua_scripts import SEED, Call
from billing.models import Quota, RateLimit, ScopeKind, ShardEpoch, Tenant, UsageEvent
from billing.money import PICO_PER_NANO
from billing.redis_connection import connection, run_warm

LOCK_WAIT_S: Final = 10.0
RATE_MAX: Final = 2_000_000_000
SCOPE_COLUMN: Final = {
    ScopeKind.TENANT: "tenant_id",
    ScopeKind.TEAM: "team_id",
    ScopeKind.KEY: "api_key_id",
}

# What a drained event is worth in Redis: its cost, or what was debited while it is in quarantine.
DEBITED_PICO: Final = Case(
    When(state=UsageEvent.State.QUARANTINED, then=F("charged_nano") * PICO_PER_NANO),
    default=F("tenant_cost_pico"),
    output_field=BigIntegerField(),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of one tenant: its own, its teams' and its keys'."""

    quotas: tuple[Quota, ...]
    rates: tuple[RateLimit, ...]


@dataclass(frozen=True, slots=True)
class CapRegister:
    """A cap's register in Redis as Postgres has it; `lasts_ms` is 0 where it stays for good."""

    key: str
    spent_pico: int
    lasts_ms: int


def limits_for(tenant: Tenant) -> Limits:
    return Limits(
        quotas=tuple(Quota.objects.filter(tenant=tenant).order_by("scope_kind", "scope_id", "pk")),
        rates=tuple(RateLimit.objects.filter(tenant=tenant).order_by("scope_kind", "scope_id")),
    )


def set_quota(
    *,
    tenant: Tenant,
    scope_kind: str,
    scope_id: int,
    window: str,
    limit_pico: int,
    now: datetime,
    client: redis.Redis | None = None,
) -> Quota:
    """Set or change a spend cap. Takes the shard's lock to the end of the transaction;
    RedisError, Cold and LockTimeout change nothing."""
    if type(limit_pico) is not int or not 0 <= limit_pico < 10**30:
        raise LimitRefused(f"not a spend limit: {limit_pico}")
    _check_scope(tenant, scope_kind, scope_id)
    if window not in Quota.Window.values:
        raise LimitRefused(f"no such window: {window}")
    client = client or connection()
    _catch_up(client, tenant.shard, now)
    with transaction.atomic():
        locks.shard_until_commit(tenant.shard, wait_s=LOCK_WAIT_S)
        known = Quota.objects.filter(scope_kind=scope_kind, scope_id=scope_id, window=window)
        if not known.exists():
            _begin_register(client, tenant, scope_kind, scope_id, window, now)
        quota, _ = Quota.objects.update_or_create(
            scope_kind=scope_kind,
            scope_id=scope_id,
            window=window,
            defaults={"tenant": tenant, "limit_pico": limit_pico},
        )
    return quota


def _catch_up(client: redis.Redis, shard: int, now: datetime) -> None:
    """Post what has arrived, so that a new cap knows of it at once and not within the second.
    Inside somebody's transaction nothing can be posted."""
    if not database.in_atomic_block:
        with locks.shard(shard, wait_s=LOCK_WAIT_S) as taken:
            if taken:
                metering.drain(client, shard, now=now)


def _begin_register(
    client: redis.Redis, tenant: Tenant, kind: str, scope_id: int, window: str, now: datetime
) -> None:
    if usage_stream.has_pending(client, tenant.shard):
        raise LockTimeout("the last drain was cut off; the next one clears it within seconds")
    register = register_of(tenant.pk, kind=kind, scope_id=scope_id, window=window, now=now)
    nano, pico = divmod(register.spent_pico, PICO_PER_NANO)
    tag = registers.tag_of_shard(tenant.shard)
    epoch = ShardEpoch.objects.filter(shard=tenant.shard).values_list("epoch", flat=True).first()
    keys: list[bytes | str] = [registers.epoch_key(tag), registers.stream_key(tag), register.key]
    last_posted = usage_stream.last_delivered(client, tenant.shard)
    run_warm(client, Call(SEED, keys, [epoch or "", last_posted, nano, pico, register.lasts_ms]))


def register_of(
    tenant_id: int, *, kind: str, scope_id: int, window: str, now: datetime
) -> CapRegister:
    """The register of a cap in the window that `now` is in."""
    now_ms = int(now.timestamp() * 1000)
    bucket, goes_at_ms = registers.bucket_of(window, now_ms)
    return CapRegister(
        key=registers.spend_key(
            registers.tag_of_shard(registers.shard_of(tenant_id)),
            tenant_id,
            kind=kind,
            scope=str(scope_id),
            bucket=bucket,
        ),
        spent_pico=spent_pico(
            tenant_id, kind=kind, scope_id=scope_id, window=window, day=now.date()
        ),
        lasts_ms=goes_at_ms - now_ms if goes_at_ms else 0,
    )


def registers_of(tenant_ids: Sequence[int], now: datetime) -> Iterator[CapRegister]:
    """The registers of every cap of these tenants."""
    for quota in Quota.objects.filter(tenant_id__in=tenant_ids):
        yield register_of(
            quota.tenant_id,
            kind=quota.scope_kind,
            scope_id=quota.scope_id,
            window=quota.window,
            now=now,
        )


def spent_pico(tenant_id: int, *, kind: str, scope_id: int, window: str, day: date) -> int:
    """What Redis must have for the drained events of a scope in the window that `day` is in:
    what posted events cost, and what quarantined ones were debited."""
    rows = UsageEvent.objects.filter(tenant_id=tenant_id).filter(
        **{SCOPE_COLUMN[ScopeKind(kind)]: scope_id}
    )
    return sum_of_debits(_in_window(rows, window, day))


def sum_of_debits(rows: "QuerySet[UsageEvent]") -> int:
    found = rows.aggregate(total=Sum(DEBITED_PICO))
    return int(found["total"] or 0)


def _in_window(rows: "QuerySet[UsageEvent]", window: str, day: date) -> "QuerySet[UsageEvent]":
    if window == registers.LIFETIME:
        return rows
    first = day if window == registers.DAY else day.replace(day=1)
    last = day if window == registers.DAY else _last_of_month(day)
    # An attempt begins within hours of its request: the wider span lets the index on time serve.
    begins = datetime.combine(first, datetime.min.time(), tzinfo=UTC) - timedelta(days=1)
    ends = datetime.combine(last, datetime.min.time(), tzinfo=UTC) + timedelta(days=2)
    return rows.filter(day__range=(first, last), occurred_at__gte=begins, occurred_at__lt=ends)


def _last_of_month(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])


def remove_quota(*, tenant: Tenant, quota_id: int) -> None:
    """Lift a cap; its register goes with its window."""
    Quota.objects.filter(tenant=tenant, pk=quota_id).delete()


def set_rate_limit(
    *,
    tenant: Tenant,
    scope_kind: str,
    scope_id: int,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
) -> RateLimit | None:
    """Set all three rate limits of a scope; None lifts one, and all None remove the row."""
    _check_scope(tenant, scope_kind, scope_id)
    values = {"rpm": rpm, "tpm": tpm, "concurrency": concurrency}
    for name, value in values.items():
        if value is not None and (type(value) is not int or not 0 <= value <= RATE_MAX):
            raise LimitRefused(f"not a limit for {name}: {value}")
    with transaction.atomic():
        if _nothing(values.values()):
            RateLimit.objects.filter(
                tenant=tenant, scope_kind=scope_kind, scope_id=scope_id
            ).delete()
            return None
        limit, _ = RateLimit.objects.update_or_create(
            scope_kind=scope_kind, scope_id=scope_id, defaults={"tenant": tenant, **values}
        )
        return limit


def _nothing(values: Iterable[int | None]) -> bool:
    return all(value is None for value in values)


def _check_scope(tenant: Tenant, kind: str, scope_id: int) -> None:
    if kind not in ScopeKind.values:
        raise LimitRefused(f"no such scope: {kind}")
    if kind == ScopeKind.TENANT and scope_id != tenant.pk:
        raise LimitRefused("a tenant's limit belongs to the tenant itself")
    taken = [
        model.objects.filter(scope_kind=kind, scope_id=scope_id).exclude(tenant=tenant).exists()
        for model in (Quota, RateLimit)
    ]
    if any(taken):
        raise LimitRefused(f"{kind} {scope_id} belongs to another tenant")
