"""Which grant paid for what: usage burns grants in a fixed order, and what expires is taken back.

Order: lower priority, earlier expiry, given before bought, older. Usage counts at the moment it was
posted; between two looks each expiry is a boundary, so usage before it burns the expiring grant and
usage after it does not. Rounding, credit notes and withdrawals are burnt like any other grant.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import redis
from django.db import transaction
from django.db.models import Sum

from billing import apart, credit
from billing.ledger import Code, Kind
from billing.models import CreditGrant, Entry, GrantUse, Tenant
from billing.redis_connection import connection

GrantKind = CreditGrant.Kind
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Pot:
    """One grant and what is left of it, in pico-dollars."""

    grant: CreditGrant
    left_pico: int

    @property
    def rank(self) -> tuple[int, datetime, bool, int]:
        grant = self.grant
        return (
            grant.priority,
            grant.expires_at or NEVER,
            grant.kind != GrantKind.GIVEN,
            grant.pk,
        )

    def is_live(self, at: datetime) -> bool:
        return self.grant.expires_at is None or self.grant.expires_at > at


def burn(pots: Iterable[Pot], amount_pico: int, *, at: datetime) -> list[tuple[Pot, int]]:
    """Take an amount from the pots that are live just before `at`, in order. Pure but for them.

    What no pot has is left: it is owed, and burns what is granted later.
    """
    taken = []
    ordered = sorted((pot for pot in pots if pot.left_pico > 0), key=lambda pot: pot.rank)
    for pot in ordered:
        if amount_pico <= 0:
            break
        if pot.grant.expires_at is not None and pot.grant.expires_at < at:
            continue
        part = min(pot.left_pico, amount_pico)
        pot.left_pico -= part
        amount_pico -= part
        taken.append((pot, part))
    return taken


def pots_of(tenant: Tenant) -> list[Pot]:
    """Every grant that added credit, with what earlier burning and expiry left of it."""
    grants = CreditGrant.objects.filter(tenant=tenant, amount_pico__gt=0).order_by("pk")
    used = dict(
        GrantUse.objects.filter(grant__tenant=tenant)
        .values_list("grant_id")
        .annotate(total=Sum("amount_pico"))
    )
    expired = dict(
        CreditGrant.objects.filter(tenant=tenant, kind=GrantKind.EXPIRY)
        .values_list("expires_id")
        .annotate(total=Sum("amount_pico"))
    )
    return [
        Pot(
            grant,
            int(grant.amount_pico) - int(used.get(grant.pk, 0)) + int(expired.get(grant.pk, 0)),
        )
        for grant in grants
    ]


def allocate(tenant: Tenant, *, now: datetime) -> list[Pot]:
    """Burn what was posted since the last look; what is left of each grant afterwards.

    Locks the tenant's row. Usage beyond all grants stays owed.
    """
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        pots = pots_of(tenant)
        allocated = GrantUse.objects.filter(grant__tenant=tenant).aggregate(t=Sum("amount_pico"))
        done = int(allocated["t"] or 0)
        boundaries = sorted(
            {p.grant.expires_at for p in pots if p.grant.expires_at and p.grant.expires_at < now}
        )
        uses = []
        for until in [*boundaries, now]:
            owed = _consumed(tenant, until) - done
            taken = burn(pots, owed, at=until)
            done += sum(part for _, part in taken)
            uses += [GrantUse(grant=p.grant, amount_pico=part, until=until) for p, part in taken]
        GrantUse.objects.bulk_create(uses)
    return pots


def _consumed(tenant: Tenant, until: datetime) -> int:
    """Usage posted and credit withdrawn up to a moment, in pico-dollars."""
    usage = Entry.objects.filter(
        account__kind=Kind.TENANT_CREDIT,
        account__tenant=tenant,
        transfer__code=Code.USAGE,
        transfer__created_at__lte=until,
    ).aggregate(total=Sum("amount_pico"))["total"]
    withdrawn = (
        CreditGrant.objects.filter(tenant=tenant, amount_pico__lt=0, created_at__lte=until)
        .exclude(kind=GrantKind.EXPIRY)
        .aggregate(total=Sum("amount_pico"))["total"]
    )
    return int(usage or 0) - int(withdrawn or 0)


def expire_due(*, now: datetime, client: redis.Redis | None = None) -> list[CreditGrant]:
    """Take back what is left of every grant whose time is over; run again, it takes nothing more.

    What open requests hold is left until they have ended: a hold that was granted stays covered.
    """
    client = client or connection()
    tenants = Tenant.objects.filter(grants__expires_at__lte=now).distinct().order_by("pk")
    found = apart.each(tenants, lambda t: _expire(t, client, now), name=lambda t: t.slug)
    return [made for expired in found for made in expired]


def _expire(tenant: Tenant, client: redis.Redis, now: datetime) -> list[CreditGrant]:
    made = []
    for pot in allocate(tenant, now=now):
        if pot.is_live(now) or pot.left_pico <= 0:
            continue
        free = credit.balance(tenant, client=client).left_pico
        amount = min(pot.left_pico, max(0, free))
        if amount:
            made.append(
                credit.grant(
                    tenant=tenant,
                    amount_pico=-amount,
                    reason=f"expired: {pot.grant.reason}",
                    created_by="expiry of credit",
                    kind=GrantKind.EXPIRY,
                    expires=pot.grant,
                )
            )
    return made
