"""Registers in Redis against PostgreSQL: at one instant per shard, under the shard's lock, so that
a difference is one.

Of tenants, and of every cap in the window that is now. What is wrong is a finding: a register that
disagrees until it is compared again and agrees; a cap that was passed until a person says why. A
shard that cannot be looked at leaves its findings as they are.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import redis
from django.db.models import Max

from billing import fault_isolation, locks, registers
from billing.credit import balances as credit
from billing.drain import metering
from billing.holding import hold_modes, quota_registers
from billing.integrity import register_findings
from billing.integrity.register_findings import CAP_PASSED, CREDIT_PASSED, DIFFERS, Wrong
from billing.models import AuditEntry, Quota, ShardEpoch, Tenant
from billing.money import PICO_PER_NANO
from billing.redis.connection import run
from billing.redis.declared import ComparedRow
from billing.redis.scripts import COLD, COMPARE, COMPARED

LOCK_WAIT_S: Final = 2.0

REGISTERS_EQUAL: Final = "Redis registers equal Postgres, unread events and open holds"
WITHIN_CREDIT: Final = "nobody spends or holds beyond credit and overdraft"
WITHIN_CAPS: Final = "nobody spends or holds beyond a cap and overdraft"
KINDS: Final = {REGISTERS_EQUAL: DIFFERS, WITHIN_CREDIT: CREDIT_PASSED, WITHIN_CAPS: CAP_PASSED}

# Until every data plane holds a new limit.
TAKEN_UP: Final = timedelta(minutes=10)
# What of a tenant moves how far its limits may be passed.
OVERDRAFT_MOVED: Final = "tenant.hold_mode"


@dataclass(frozen=True, slots=True)
class Register:
    """One register with what it must equal: a tenant's, or a cap's."""

    key: str
    tenant: Tenant
    posted_pico: int
    cap: Quota | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis had at one instant, in pico-dollars."""

    key: str
    exists: bool
    spent_pico: int
    held_pico: int
    unread_pico: int
    open_pico: int
    credit_pico: int


def check(client: redis.Redis, *, now: datetime) -> dict[str, list[str]]:
    """Compare every tenant's and every cap's register; busy or cold shards wait for next time."""
    epochs = dict(ShardEpoch.objects.values_list("shard", "epoch"))
    tenants: dict[int, list[Tenant]] = defaultdict(list)
    for tenant in Tenant.objects.all():
        tenants[tenant.shard].append(tenant)

    def look(shard: int) -> None:
        with locks.shard(shard, wait_s=LOCK_WAIT_S) as taken:
            if taken:
                # What a dead drain has committed and not acknowledged is settled first.
                metering.drain(client, shard, now=now)
                expected = _expected(shard, tenants[shard], now)
                compared = _compare(client, shard, epochs[shard], expected)
                wrong = _wrong(compared, now)
                register_findings.note(wrong, {found.key for _, found in compared}, now=now)

    known = sorted(tenants.keys() & epochs.keys())
    fault_isolation.each(known, look, name=lambda shard: f"shard {shard}")
    return {name: register_findings.open_words(kind) for name, kind in KINDS.items()}


def _expected(shard: int, tenants: Sequence[Tenant], now: datetime) -> list[Register]:
    """A cap that was set or moved since this run began may be of a later window: next time."""
    tag = registers.tag_of_shard(shard)
    by_id = {tenant.pk: tenant for tenant in tenants}
    credits = credit.debited_pico(list(by_id)).items()
    caps = {q.pk: q for q in quota_registers.with_registers(by_id).exclude(limit_since__gt=now)}
    spent = quota_registers.of_quotas(caps.values(), now)
    return [
        *(Register(registers.tenant_key(tag, pk), by_id[pk], pico) for pk, pico in credits),
        *(Register(spent[pk].key, q.tenant, spent[pk].spent_pico, q) for pk, q in caps.items()),
    ]


def _compare(
    client: redis.Redis, shard: int, epoch: str, expected: Iterable[Register]
) -> list[tuple[Register, Found]]:
    tag = registers.tag_of_shard(shard)
    wanted = list(expected)
    call = COMPARE.call(
        {
            "epoch_key": registers.epoch_key(tag),
            "stream_key": registers.stream_key(tag),
            "leases_key": registers.leases_key(tag),
            "epoch": epoch,
            "last_posted": metering.last_delivered(client, shard),
            "hold_prefix": registers.hold_key(tag, ""),
            "registers": [{"key": register.key} for register in wanted],
        }
    )
    reply = run(client, call)
    if COLD.is_said(reply):
        return []
    return [
        (register, _found(register.key, row))
        for register, row in zip(wanted, COMPARED.read(reply)["rows"], strict=True)
    ]


def _found(key: str, row: ComparedRow) -> Found:
    return Found(
        key=key,
        exists=row["exists"],
        spent_pico=row["spent_nano"] * PICO_PER_NANO + row["pico"],
        held_pico=row["held_nano"] * PICO_PER_NANO,
        unread_pico=row["unread_nano"] * PICO_PER_NANO,
        open_pico=row["open_nano"] * PICO_PER_NANO,
        credit_pico=row["credit_nano"] * PICO_PER_NANO,
    )


def _wrong(compared: Iterable[tuple[Register, Found]], now: datetime) -> list[Wrong]:
    wrong: list[Wrong] = []
    passed: list[tuple[Quota | None, Wrong]] = []
    for register, found in compared:
        tenant_id, cap = register.tenant.pk, register.cap
        differences = "; ".join(_differences(register, found))
        if differences:
            wrong.append(Wrong(DIFFERS, tenant_id, found.key, differences))
        beyond = _beyond(register, found, now)
        if beyond:
            kind = CAP_PASSED if cap else CREDIT_PASSED
            used_pico = found.spent_pico + found.held_pico
            passed.append((cap, Wrong(kind, tenant_id, found.key, beyond, used_pico)))
    bound = _bound_among([cap for cap, _ in passed if cap], now)
    return wrong + [said for cap, said in passed if cap is None or cap.pk in bound]


def _differences(register: Register, found: Found) -> list[str]:
    """A cap's register may not exist yet in a window in which nobody has spent."""
    if not found.exists and register.posted_pico + found.unread_pico == 0:
        return []
    wrong = []
    due = register.posted_pico + found.unread_pico
    if found.spent_pico != due:
        wrong.append(f"{found.key}: spent {found.spent_pico}, due {due}")
    if found.held_pico != found.open_pico:
        wrong.append(f"{found.key}: held {found.held_pico}, open {found.open_pico}")
    return wrong


def _beyond(register: Register, found: Found, now: datetime) -> str:
    """Later corrections of what the tenant owes are of pico-dollars, and downward."""
    used = found.spent_pico + found.held_pico
    cap = register.cap
    if cap is None:
        limit_pico = found.credit_pico
    else:
        limit_pico = quota_registers.highest_limit(cap, now)
    limit_pico += hold_modes.overdraft_of(register.tenant)
    if used <= limit_pico or used == 0 or (cap is not None and cap.shadow):
        return ""
    return f"{found.key}: {used} of {limit_pico}"


def _bound_among(caps: Sequence[Quota], now: datetime) -> set[int]:
    """Those whose limit bound what is in the window: requests of before it may have had another
    one, other hours, or more room to pass it, and only what comes after is refused. Whoever lowers
    a thousand caps passes them all, so they are asked after together."""
    if not caps:
        return set()
    moves = AuditEntry.objects.filter(
        tenant__in={cap.tenant_id for cap in caps}, action=OVERDRAFT_MOVED
    )
    moved = dict(moves.order_by().values_list("tenant").annotate(Max("occurred_at")))
    since = {
        cap: max(
            (at + TAKEN_UP for at in (cap.limit_since, moved.get(cap.tenant_id)) if at),
            default=None,
        )
        for cap in caps
    }
    return quota_registers.bound_among(since, now)
