"""Credit of tenants: granted in the ledger, and told to Redis as one absolute, versioned figure.

Redis refuses a figure older than what it has. A push that gets lost is repeated by `push_stale`.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

import redis
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from billing import audit, fault_isolation, registers
from billing.books import ledger
from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.credit import attribution, credit_ends
from billing.errors import CreditRefused
from billing.models import AccountSum, CreditGrant, Tenant, UsageEvent
from billing.money import PICO_PER_NANO, PICO_PER_USD, REGISTER_NANO_MAX, nano_floor
from billing.redis.connection import connection, run
from billing.redis.scripts import CREDIT

logger = logging.getLogger(__name__)

GrantKind = CreditGrant.Kind
AGAINST: Final = {
    GrantKind.GIVEN: Kind.PROMO_EXPENSE,
    GrantKind.PAID: Kind.CASH,
    GrantKind.ROUNDING: Kind.ROUNDING,
    GrantKind.CREDIT_NOTE: Kind.REVENUE,
    GrantKind.TAX: Kind.TAX_PAYABLE,
    GrantKind.ADJUSTMENT: Kind.REVENUE,
    GrantKind.EXPIRY: Kind.BREAKAGE,
}
# Fields of a tenant's register, as Redis answers.
_Register = list[bytes | None]
# A grant that Redis hears of later has let requests pass that it pays for.
TOLD_WITHIN_MS: Final = 2_000
# One grant above this is a slip of the hand.
GRANT_PICO_MAX: Final = 10_000_000 * PICO_PER_USD


@dataclass(frozen=True, slots=True)
class Balance:
    """`credit_pico` is without what has ended by now, taken back or not. `spent_pico` contains what
    is debited in Redis and not yet posted; `held_pico` is what open requests may still cost.
    `left_pico` is what a new request may hold."""

    credit_pico: int
    spent_pico: int
    held_pico: int

    @property
    def left_pico(self) -> int:
        return self.credit_pico - self.spent_pico - self.held_pico


def grant(
    *,
    tenant: Tenant,
    amount_pico: int,
    reason: str,
    created_by: str,
    kind: str = GrantKind.GIVEN,
    expires_at: datetime | None = None,
    expires: CreditGrant | None = None,
    now: datetime | None = None,
) -> CreditGrant:
    """Give credit, until it ends where `expires_at` says so, or take it back (negative). Locks the
    tenant's row."""
    if not isinstance(amount_pico, int) or not 0 < abs(amount_pico) <= GRANT_PICO_MAX:
        raise CreditRefused(f"not an amount that can be granted: {amount_pico}")
    now = now or timezone.now()
    with transaction.atomic():
        locked = Tenant.objects.select_for_update().get(pk=tenant.pk)
        if expires_at is not None:
            _check_end(locked, amount_pico, expires_at, now)
        locked.credit_version += 1
        locked.save(update_fields=["credit_version"])
        transfer = ledger.post(
            Draft(
                code=Code.GRANT,
                legs=(
                    Leg(AccountKey(_against(kind, expires)), amount_pico),
                    Leg(AccountKey(Kind.TENANT_CREDIT, tenant.pk), -amount_pico),
                ),
                idempotency_key=f"grant:{tenant.pk}:{locked.credit_version}",
                tenant_id=tenant.pk,
                memo=reason[:200],
            )
        )
        made = CreditGrant.objects.create(
            tenant=locked,
            amount_pico=amount_pico,
            kind=kind,
            expires_at=expires_at,
            expires=expires,
            created_at=now,
            reason=reason[:200],
            transfer=transfer,
            created_by=created_by,
        )
        if kind == GrantKind.GIVEN:
            # A person's decision; every other grant follows from a document that says who made it.
            audit.record(
                actor=created_by,
                action="credit.grant",
                subject=tenant.slug,
                tenant=tenant,
                after={"amount_pico": amount_pico}
                | ({"expires_at": expires_at.isoformat()} if expires_at else {}),
                reason=reason,
                now=now,
            )
        transaction.on_commit(lambda: _push_or_leave(tenant.pk, now))
    return made


def _check_end(tenant: Tenant, amount_pico: int, expires_at: datetime, now: datetime) -> None:
    if amount_pico < 0:
        raise CreditRefused("what is taken back does not end")
    if expires_at <= now:
        raise CreditRefused("the end lies in the past")
    if attribution.unclosed().filter(tenant=tenant).count() >= attribution.ENDING_MAX:
        raise CreditRefused(
            f"a tenant has at most {attribution.ENDING_MAX} credits that end at a time"
        )


def _against(kind: str, expires: CreditGrant | None) -> str:
    """The account that balances a grant; given credit that expires costs nothing after all."""
    if expires is not None and expires.kind == GrantKind.GIVEN:
        return Kind.PROMO_EXPENSE
    return AGAINST[GrantKind(kind)]


def change_terms(
    *,
    tenant: Tenant,
    actor: str,
    now: datetime,
    credit_limit_pico: int | None = None,
    status: str | None = None,
) -> None:
    """Change how far below zero a tenant may go, or suspend it, and tell Redis."""
    if credit_limit_pico is not None and not 0 <= credit_limit_pico <= GRANT_PICO_MAX:
        raise CreditRefused(f"not a credit limit: {credit_limit_pico}")
    with transaction.atomic():
        locked = Tenant.objects.select_for_update().get(pk=tenant.pk)
        before = _terms(locked)
        if credit_limit_pico is not None:
            locked.credit_limit_pico = credit_limit_pico
        if status is not None:
            locked.status = Tenant.Status(status)
        locked.credit_version += 1
        locked.save(update_fields=["credit_limit_pico", "status", "credit_version"])
        audit.record(
            actor=actor,
            action="tenant.terms",
            subject=tenant.slug,
            tenant=locked,
            before=before,
            after=_terms(locked),
            now=now,
        )
        transaction.on_commit(lambda: _push_or_leave(tenant.pk, now))


def _terms(tenant: Tenant) -> dict[str, int | str]:
    return {"credit_limit_pico": int(tenant.credit_limit_pico), "status": str(tenant.status)}


def _push_or_leave(tenant_id: int, now: datetime) -> None:
    try:
        push(connection(), tenant_id, now)
    except redis.RedisError:
        logger.warning("credit of tenant %s was not pushed; push_stale will", tenant_id)


def credit_pico(tenant: Tenant) -> int:
    """All that was granted, and how far below zero the tenant may go."""
    return _granted_pico([tenant.pk])[tenant.pk] + int(tenant.credit_limit_pico)


def push(client: redis.Redis, tenant_id: int, now: datetime | None = None) -> None:
    """Tell Redis the tenant's credit and status as Postgres has them now."""
    with transaction.atomic():
        # Version and sum must be of one moment.
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        credit, (ending, posted) = credit_pico(tenant), attribution.ends_of(tenant)
    call = CREDIT.call(
        {
            "tenant_key": registers.tenant_key(registers.shard_tag(tenant_id), tenant_id),
            "credit_nano": as_register(credit),
            "version": tenant.credit_version,
            "status": tenant.status,
            "ends": credit_ends.pack(ending),
            "posted": credit_ends.pack_moments(posted),
            "now_ms": registers.moment_ms(now or timezone.now()),
            "late_ms": TOLD_WITHIN_MS,
        }
    )
    run(client, call)


def as_register(pico: int) -> int:
    """Rounded down, and clamped to what a register can hold."""
    limit = REGISTER_NANO_MAX - 1
    return max(min(nano_floor(pico), limit), -limit)


def push_stale(client: redis.Redis, *, tenants: Iterable[int] | None = None) -> int:
    """Push the credit of every tenant (or of these) whose register is older than Postgres; returns
    how many."""
    found = Tenant.objects.all() if tenants is None else Tenant.objects.filter(pk__in=tenants)
    versions = list(found.values_list("pk", "credit_version"))
    with client.pipeline(transaction=False) as pipe:
        for pk, _ in versions:
            pipe.hget(registers.tenant_key(registers.shard_tag(pk), pk), "version")
        known = pipe.execute()
    stale = [pk for (pk, version), have in zip(versions, known, strict=True) if _old(have, version)]
    fault_isolation.each(
        stale, lambda pk: push(client, pk), name=lambda pk: f"credit of tenant {pk}"
    )
    return len(stale)


def _old(known: bytes | None, version: int) -> bool:
    return known is None or int(known) < version


def balance(
    tenant: Tenant, *, client: redis.Redis | None = None, now: datetime | None = None
) -> Balance:
    """What is left to spend; RedisError while Redis is away."""
    fresh = Tenant.objects.get(pk=tenant.pk)
    return balances([fresh], client=client, now=now)[tenant.pk]


def balances(
    tenants: Iterable[Tenant], *, client: redis.Redis | None = None, now: datetime | None = None
) -> dict[int, Balance]:
    """What is left to each, in one round trip; RedisError while Redis is away."""
    found = list(tenants)
    with (client or connection()).pipeline(transaction=False) as pipe:
        for tenant in found:
            key = registers.tenant_key(registers.shard_tag(tenant.pk), tenant.pk)
            pipe.hmget(key, "spent", "pico", "held", *credit_ends.FIELDS)
        rows = cast(list[_Register], pipe.execute())
    known = dict(zip((tenant.pk for tenant in found), rows, strict=True))
    known |= _posted([tenant for tenant in found if known[tenant.pk][0] is None], known)
    granted = _granted_pico([tenant.pk for tenant in found])
    now_ms = registers.moment_ms(now or timezone.now())
    return {
        tenant.pk: _balance(tenant, known[tenant.pk], granted[tenant.pk], now_ms)
        for tenant in found
    }


def _posted(tenants: list[Tenant], known: Mapping[int, _Register]) -> dict[int, _Register]:
    """What the registers of these would say, which Redis does not have yet."""
    if not tenants:
        return {}
    debited = debited_pico(tenant.pk for tenant in tenants)
    having = set(attribution.unclosed().filter(tenant__in=tenants).values_list("tenant", flat=True))
    registered: dict[int, _Register] = {}
    for tenant in tenants:
        ending, posted = attribution.ends_of(tenant) if tenant.pk in having else ([], {})
        spent, pico = divmod(debited[tenant.pk], PICO_PER_NANO)
        told = (credit_ends.pack(ending), credit_ends.pack_moments(posted))
        registered[tenant.pk] = [
            *(str(part).encode() for part in (spent, pico)),
            known[tenant.pk][2],
            *(text.encode() for text in told),
            None,
        ]
    return registered


def _granted_pico(tenant_ids: list[int]) -> dict[int, int]:
    """By the ledger's sums: each grant is one transfer of this code, made with it."""
    granted = dict.fromkeys(tenant_ids, 0)
    for tenant_id, pico in _booked_pico(tenant_ids, Code.GRANT):
        granted[tenant_id] -= pico
    return granted


def _booked_pico(tenant_ids: list[int], code: Code) -> Iterator[tuple[int, int]]:
    """What was debited to each tenant's credit by transfers of one kind."""
    booked = AccountSum.objects.filter(
        account__kind=Kind.TENANT_CREDIT, account__tenant_id__in=tenant_ids, code=code
    ).values_list("account__tenant_id")
    for tenant_id, total in booked.annotate(total=Sum("amount_pico")):
        yield tenant_id, int(total)


def _balance(tenant: Tenant, row: _Register, granted_pico: int, now_ms: int) -> Balance:
    spent, pico, held, *told = row
    spent_pico = int(spent or 0) * PICO_PER_NANO + int(pico or 0)
    held_nano = int(held or 0)
    ended = credit_ends.ended_nano(
        *told,
        used_nano=spent_pico // PICO_PER_NANO + held_nano,
        now_ms=now_ms,
    )
    return Balance(
        credit_pico=granted_pico + int(tenant.credit_limit_pico) - ended * PICO_PER_NANO,
        spent_pico=spent_pico,
        held_pico=held_nano * PICO_PER_NANO,
    )


def parts(tenant: Tenant, *, now: datetime) -> attribution.Shown:
    """What is left of each grant, and what is owed; while Redis is away by what is posted."""
    try:
        debited = balance(tenant, now=now).spent_pico
    except redis.RedisError:
        debited = debited_pico([tenant.pk])[tenant.pk]
    return attribution.shown(tenant, debited_pico=debited, now=now)


def debited_pico(tenant_ids: Iterable[int]) -> dict[int, int]:
    """What Redis must have debited for all that is drained: what the ledger took for usage, and
    what quarantined events were debited."""
    ids = list(tenant_ids)
    debited: dict[int, int] = dict.fromkeys(ids, 0)
    for tenant_id, pico in _booked_pico(ids, Code.USAGE):
        debited[tenant_id] += pico
    quarantined = UsageEvent.objects.filter(
        tenant_id__in=ids, state=UsageEvent.State.QUARANTINED
    ).values_list("tenant_id")
    for tenant_id, total in quarantined.annotate(total=Sum("charged_nano")):
        debited[tenant_id] += int(total) * PICO_PER_NANO
    return debited
