"""The promises of the money, checked continuously; the results are shown in the admin console.

Of Postgres each check reads what is new since it last held, and the sums of everything, and seals
new rows; an audit reads all rows that none has read before, and some of the others again. Redis is
compared at one instant per shard, under the shard's lock, so that a difference is one.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import redis
from django.db import connection

from billing import fault_isolation, locks, registers
from billing.books import claims
from billing.credit import balances as credit
from billing.drain import metering
from billing.holding import hold_modes, quota_registers
from billing.integrity import anchors, findings, row_seals, sealing
from billing.integrity.invariant_statements import OF_NEW_ROWS, OF_SUMS
from billing.invariant_results import report
from billing.models import InvariantCheck, ShardEpoch, Tenant
from billing.money import PICO_PER_NANO
from billing.redis.connection import run
from billing.redis.declared import ComparedRow
from billing.redis.scripts import COLD, COMPARE, COMPARED

logger = logging.getLogger(__name__)

# Rows are dated before they are committed: a check begins again this long before the last one.
OVERLAP: Final = timedelta(minutes=15)
LOCK_WAIT_S: Final = 2.0
SHOWN_MAX: Final = 5

REGISTERS_EQUAL: Final = "Redis registers equal Postgres, unread events and open holds"
WITHIN_CREDIT: Final = "nobody spends or holds beyond credit and overdraft"
# Reported when they break, by whoever sees it; they start out kept.
REPORTED: Final = ("one event, one body", "every event readable")

Results = dict[str, list[str]]  # violations by promise


@dataclass(frozen=True, slots=True)
class Register:
    """One register with what it must equal."""

    key: str
    posted_pico: int


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis had at one instant, in pico-dollars."""

    key: str
    exists: bool
    spent_pico: int
    held_pico: int
    unread_pico: int
    open_pico: int


def check_all(client: redis.Redis, *, now: datetime) -> bool:
    """Check what is new, all sums and all registers, and record each result."""
    verified = dict(InvariantCheck.objects.values_list("name", "verified_until"))

    def of_new_rows(name: str) -> Results:
        since = (verified.get(name) or registers.EPOCH + OVERLAP) - OVERLAP
        return {name: _violations(OF_NEW_ROWS[name], since)}

    with fault_isolation.told_at_the_end():
        found = fault_isolation.each(OF_NEW_ROWS, of_new_rows)
        found.append({claims.WITHIN_ASKED: claims.undecided()})
        with fault_isolation.apart("seals of new rows"):
            row_seals.seal_new(now=now)
        found.append({findings.AS_SEALED: findings.open_words()})
        return _record([*found, *_check_sums(), *_of_registers(client, now)], now)


def audit(client: redis.Redis, *, now: datetime, everything: bool = False) -> bool:
    """Check the rows and the sums against them, by blocks that `sealing` keeps; `everything`: every
    row there is, at a cost that grows with all of history."""
    with fault_isolation.told_at_the_end():
        rows = fault_isolation.each(
            ["rows"], lambda _: sealing.audit_rows(now=now, everything=everything)
        )
        with fault_isolation.apart("the anchor of the day"):
            # A log that is kept elsewhere keeps it outside the database.
            logger.info("%s", anchors.text(anchors.heads(), now=now))
        return _record([*rows, *_check_sums(), *_of_registers(client, now)], now)


def _check_sums() -> list[Results]:
    return fault_isolation.each(OF_SUMS, lambda name: {name: _violations(OF_SUMS[name])})


def _of_registers(client: redis.Redis, now: datetime) -> list[Results]:
    return fault_isolation.each(["registers"], lambda _: check_registers(client, now=now))


def _record(found: Iterable[Results], now: datetime) -> bool:
    """What could not be looked at stays as it was, and is looked at again from there."""
    results: Results = {}
    for part in found:
        results |= part
    for name, wrong in results.items():
        report(name, not wrong, "; ".join(wrong[:SHOWN_MAX]), now)
    new = results.keys() & OF_NEW_ROWS.keys()
    InvariantCheck.objects.filter(name__in=new, holds=True).update(verified_until=now)
    for name in REPORTED:
        InvariantCheck.objects.get_or_create(name=name, defaults={"holds": True, "checked_at": now})
    return not any(results.values())


def _violations(sql: str, *arguments: datetime) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return [" ".join(str(value) for value in row) for row in cursor.fetchall()]


def check_registers(client: redis.Redis, *, now: datetime) -> Results:
    """Compare every tenant's and every cap's register; busy or cold shards wait for next time."""
    epochs = dict(ShardEpoch.objects.values_list("shard", "epoch"))
    overdrafts = {tenant.pk: hold_modes.overdraft_of(tenant) for tenant in Tenant.objects.all()}
    tenants: dict[int, list[int]] = defaultdict(list)
    for pk in overdrafts:
        tenants[registers.shard_of(pk)].append(pk)

    def look(shard: int) -> tuple[list[str], list[str]]:
        unequal: list[str] = []
        beyond: list[str] = []
        with locks.shard(shard, wait_s=LOCK_WAIT_S) as taken:
            if not taken:
                return unequal, beyond
            # What a dead drain has committed and not acknowledged is settled first.
            metering.drain(client, shard, now=now)
            expected = _expected(shard, tenants[shard], now)
            for register, found in _compare(client, shard, epochs[shard], expected):
                unequal += _differences(register, found)
                if found.key.startswith("tenant:"):
                    tenant = int(found.key.rpartition(":")[2])
                    beyond += _beyond(client, found, overdrafts[tenant])
        return unequal, beyond

    known = sorted(tenants.keys() & epochs.keys())
    looked = fault_isolation.each(known, look, name=lambda shard: f"shard {shard}")
    return {
        REGISTERS_EQUAL: [wrong for unequal, _ in looked for wrong in unequal],
        WITHIN_CREDIT: [wrong for _, beyond in looked for wrong in beyond],
    }


def _expected(shard: int, tenants: Sequence[int], now: datetime) -> list[Register]:
    tag = registers.tag_of_shard(shard)
    credits = credit.debited_pico(tenants).items()
    return [Register(registers.tenant_key(tag, pk), posted) for pk, posted in credits] + [
        Register(cap.key, cap.spent_pico) for cap in quota_registers.registers_of(tenants, now)
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
    )


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


def _beyond(client: redis.Redis, found: Found, overdraft_pico: int) -> list[str]:
    """Later corrections of what the tenant owes are of pico-dollars, and downward."""
    credit_nano = int(client.hget(found.key, "credit") or 0)
    limit_pico = credit_nano * PICO_PER_NANO + overdraft_pico
    used = found.spent_pico + found.held_pico
    if used <= limit_pico or used == 0:
        return []
    return [f"{found.key}: {used} of {limit_pico}"]
