"""Rebuilds a shard's registers from Postgres, what is unread, and the holds that are open.

A shard is cold while Redis does not know the epoch that Postgres has: nothing is placed or settled
then, so nothing moves under a rebuild. It drains what is unread, writes every register from
Postgres, and makes a new epoch last; the data plane learns of it from its snapshot.
"""

import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, takewhile
from typing import Any, Final, cast

import redis
from django.db import connection
from django.db.models import F

from billing import fault_isolation, locks, registers
from billing.credit import attribution, credit_ends
from billing.credit import balances as credit
from billing.drain import metering
from billing.holding import holds, quota_registers, sessions
from billing.models import RevokedKey, ShardEpoch, Tenant
from billing.money import PICO_PER_NANO

logger = logging.getLogger(__name__)

LOCK_WAIT_S: Final = 30.0
DRAINS_MAX: Final = 10_000
# One that cannot be rebuilt takes turns with the rest of the work, which is everybody's.
RETRIED_AFTER: Final = timedelta(seconds=10)
BEGUN_WITHIN_S: Final = 15.0
# The register of a window that is over, or of a cap that was lifted, lasts for its open holds.
HELD_LASTS_MS: Final = 35 * registers.MS_PER_DAY

Register = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class _OpenHold:
    at_ms: int
    nano: int
    tenant_key: str
    spend_keys: tuple[str, ...]


def cold_shards(client: redis.Redis) -> list[int]:
    """Shards whose Redis does not know the epoch of Postgres."""
    keys = [registers.epoch_key(registers.tag_of_shard(n)) for n in range(registers.SHARDS)]
    in_redis = cast(list[bytes | None], client.mget(keys))
    in_postgres = dict(ShardEpoch.objects.values_list("shard", "epoch"))
    return [
        shard
        for shard, epoch in enumerate(in_redis)
        if epoch is None or epoch.decode() != in_postgres.get(shard)
    ]


def rebuild_cold(client: redis.Redis, *, now: datetime) -> list[int]:
    """Rebuild what is cold; shards that somebody else is at are left to them, and those that could
    not be rebuilt just now wait. What is not begun in a while is left to the next run."""
    cold = _due(cold_shards(client), now)
    if not cold:
        return []
    stale = _owned_keys(client, cold)
    begun_until = time.monotonic() + BEGUN_WITHIN_S

    def rebuild_one(shard: int) -> bool:
        with locks.shard(shard) as taken:
            if not taken or shard not in cold_shards(client):
                return False
            _rebuild_or_note(client, shard, stale[shard], now)
            return True

    in_time = takewhile(lambda _: time.monotonic() < begun_until, cold)
    done = fault_isolation.each(in_time, lambda n: (n, rebuild_one(n)), name=lambda n: f"shard {n}")
    return [shard for shard, is_rebuilt in done if is_rebuilt]


def _due(cold: Sequence[int], now: datetime) -> list[int]:
    """Those that failed come last, so that the time they take is not that of others."""
    failed = ShardEpoch.objects.filter(shard__in=cold, failed_at__isnull=False)
    resting = set(failed.filter(failed_at__gt=now - RETRIED_AFTER).values_list("shard", flat=True))
    order = list(failed.order_by("failed_at").values_list("shard", flat=True))
    return [n for n in cold if n not in order] + [n for n in order if n not in resting]


def _rebuild_or_note(client: redis.Redis, shard: int, stale: list[bytes], now: datetime) -> None:
    """Whatever ends it early, the task's time too: the shard comes last next time."""
    with ExitStack() as unfinished:
        unfinished.callback(_note_failure, shard, now)
        _rebuild(client, shard, stale, now)
        unfinished.pop_all()


def _note_failure(shard: int, now: datetime) -> None:
    if connection.is_usable():
        ShardEpoch.objects.update_or_create(shard=shard, defaults={"failed_at": now})


def rebuild(client: redis.Redis, shard: int, *, now: datetime) -> None:
    """Rebuild one shard, warm or cold: it refuses requests until this has finished."""
    with locks.shard_or_raise(shard, wait_s=LOCK_WAIT_S):
        # Before its keys are looked for: a warm shard would go on making some.
        client.delete(registers.epoch_key(registers.tag_of_shard(shard)))
        _rebuild(client, shard, _owned_keys(client, [shard])[shard], now)


def _owned_keys(client: redis.Redis, shards: Iterable[int]) -> dict[int, list[bytes]]:
    """The registers that exist now, in one pass over the keys for all shards together."""
    tags = {registers.tag_of_shard(shard).encode(): shard for shard in shards}
    found: dict[int, list[bytes]] = {shard: [] for shard in tags.values()}
    for key in client.scan_iter(match="*:{s*", count=1000):
        family, _, rest = cast(bytes, key).partition(b":")
        shard = tags.get(rest.partition(b":")[0])
        if shard is not None and family in registers.REBUILT:
            found[shard].append(key)
    return found


def _rebuild(client: redis.Redis, shard: int, stale: list[bytes], now: datetime) -> None:
    client.delete(registers.epoch_key(registers.tag_of_shard(shard)))
    metering.ensure_groups(client, [shard])
    for _ in range(DRAINS_MAX):
        if not metering.drain(client, shard, now=now).left:
            break
    in_shard = Tenant.objects.alias(in_shard=F("pk") % registers.SHARDS)
    tenants = list(in_shard.filter(in_shard=shard))
    rows, lasting = _registers(shard, tenants, now)
    open_holds = _open_holds(client, shard)
    _add_open_holds(open_holds, rows)
    _add_ends(open_holds, tenants, rows, now)
    for key in rows:
        if key.startswith("spend:") and not key.endswith(f":{registers.LIFETIME}"):
            lasting.setdefault(key, HELD_LASTS_MS)
    epoch = f"{registers.moment_ms(now):x}-{secrets.token_hex(6)}"
    # Postgres first: if the rest fails, the shard is cold and is rebuilt again.
    facts = {"epoch": epoch, "rebuilt_at": now, "failed_at": None}
    ShardEpoch.objects.update_or_create(shard=shard, defaults=facts)
    with client.pipeline(transaction=True) as pipe:
        if stale:
            pipe.delete(*stale)
        for key, row in rows.items():
            pipe.hset(key, mapping=cast(dict[Any, Any], row))
            if lasting.get(key):
                pipe.pexpire(key, lasting[key])
        for key, ends in _session_ends(lasting, now).items():
            pipe.zadd(key, cast(dict[Any, Any], ends))
            pipe.pexpire(key, registers.SESSION_KEPT_MS)
        for key, revoked in _revoked(shard, tenants).items():
            pipe.hset(key, mapping=cast(dict[Any, Any], revoked))
        pipe.set(registers.epoch_key(registers.tag_of_shard(shard)), epoch)
        pipe.execute()
    # A grant that was made meanwhile may have been overwritten; this cannot be, it reads anew.
    credit.push_stale(client, tenants=[tenant.pk for tenant in tenants])
    logger.info("shard %d rebuilt: %d tenants, epoch %s", shard, len(tenants), epoch)


def _registers(
    shard: int, tenants: Sequence[Tenant], now: datetime
) -> tuple[dict[str, Register], dict[str, int]]:
    """Every register as Postgres has it, and for how many milliseconds it lasts (0 = for good)."""
    tag = registers.tag_of_shard(shard)
    ids = [tenant.pk for tenant in tenants]
    spent = credit.debited_pico(ids)
    rows: dict[str, Register] = {}
    lasting: dict[str, int] = {}
    for tenant in tenants:
        row = _split(spent[tenant.pk])
        row |= {
            "credit": credit.as_register(credit.credit_pico(tenant)),
            "version": tenant.credit_version,
            "status": tenant.status,
        }
        rows[registers.tenant_key(tag, tenant.pk)] = row
    caps = quota_registers.registers_of(ids, now)
    for register in chain(caps, sessions.registers_of(ids, now)):
        rows[register.key] = _split(register.spent_pico)
        lasting[register.key] = register.lasts_ms
    return rows, lasting


def _session_ends(lasting: dict[str, int], now: datetime) -> dict[str, dict[str, int]]:
    """When each live session is over, by the set of its tenant's sessions."""
    now_ms = registers.moment_ms(now)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for key, lasts_ms in lasting.items():
        if key.endswith(f":{registers.SESSION}"):
            _, tag, tenant, *_ = key.split(":")
            found[registers.sessions_key(tag, int(tenant))][key] = now_ms + lasts_ms
    return found


def _split(pico: int) -> Register:
    nano, rest = divmod(pico, PICO_PER_NANO)
    return {"spent": nano, "pico": rest, "held": 0}


def _open_holds(client: redis.Redis, shard: int) -> list[_OpenHold]:
    tag = registers.tag_of_shard(shard)
    requests = cast(list[bytes], client.zrange(registers.leases_key(tag), 0, -1))
    with client.pipeline(transaction=False) as pipe:
        for request in requests:
            hold = registers.hold_key(tag, request.decode())
            pipe.hmget(hold, "state", "hold", "tenant", "spend")
        found = pipe.execute()
    return [
        _OpenHold(
            at_ms=registers.request_ms(request.decode()),
            nano=int(nano),
            tenant_key=tenant.decode(),
            spend_keys=tuple(spend.decode().split()[::2]),
        )
        for request, (state, nano, tenant, spend) in zip(requests, found, strict=True)
        if state == b"open"
    ]


def _add_open_holds(open_holds: Iterable[_OpenHold], rows: dict[str, Register]) -> None:
    """Holds that Redis still knows stay open, and count."""
    held: dict[str, int] = defaultdict(int)
    for hold in open_holds:
        for register in (hold.tenant_key, *hold.spend_keys):
            held[register] += hold.nano
    for key, nano in held.items():
        rows.setdefault(key, _split(0))["held"] = nano


def _add_ends(
    open_holds: Sequence[_OpenHold],
    tenants: Sequence[Tenant],
    rows: dict[str, Register],
    now: datetime,
) -> None:
    """What ends of a tenant's credit; where it has ended, what requests of before spent and hold:
    all that they spent is posted."""
    now_ms = registers.moment_ms(now)
    having = set(attribution.unclosed().filter(tenant__in=tenants).values_list("tenant", flat=True))
    for tenant in (tenant for tenant in tenants if tenant.pk in having):
        key = registers.tenant_key(registers.shard_tag(tenant.pk), tenant.pk)
        own = [hold for hold in open_holds if hold.tenant_key == key]
        ending, posted = attribution.ends_of(tenant)
        past = {
            at_ms: nano + sum(hold.nano for hold in own if hold.at_ms < at_ms)
            for at_ms, nano in posted.items()
            if at_ms <= now_ms
        }
        told = (
            credit_ends.pack(ending),
            credit_ends.pack_moments(posted),
            credit_ends.pack_moments(past),
        )
        rows[key] |= dict(zip(credit_ends.FIELDS, told, strict=True))


def _revoked(shard: int, tenants: Sequence[Tenant]) -> dict[str, dict[str, str]]:
    tag = registers.tag_of_shard(shard)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for key in RevokedKey.objects.filter(tenant__in=tenants):
        found[registers.key_status_key(tag, key.tenant_id)][str(key.api_key_id)] = holds.REVOKED
    return found
