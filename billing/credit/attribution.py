"""Which credit paid for what, told from the grants and the usage alone.

Credit that ends pays for what was admitted between its grant and its end, before all other credit:
what ends first pays first, of one end given before bought, then older. The rest pays for the rest,
given before bought, then older. Admission is the time in a request's id, whenever it is posted.
A withdrawal of bought credit takes bought credit; none takes what ends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Final

from django.db import connection
from django.db.models import QuerySet, Sum

from billing import registers
from billing.credit.credit_ends import Ending
from billing.models import CreditGrant, GrantUse, Tenant
from billing.money import PICO_PER_NANO, REGISTER_NANO_MAX

GrantKind = CreditGrant.Kind
# Of one tenant, granted and not closed yet: each is in a register that every hold reads.
ENDING_MAX: Final = 64
# Later than any request.
EVER_MS: Final = registers.moment_ms(datetime(9999, 12, 31, tzinfo=UTC))

# What requests of before some moments were debited, at one instant: whole days by their sums, and
# the day of the moment by its events.
DEBITED_BEFORE: Final = """
SELECT m.at_ms, coalesce(days.pico, 0) + coalesce(today.pico, 0)
FROM unnest(%(moments)s::bigint[], %(days)s::date[], %(ids)s::uuid[]) AS m (at_ms, day, id)
LEFT JOIN LATERAL (
    SELECT sum(debited_pico) AS pico FROM billing_usageday
    WHERE tenant_id = %(tenant)s AND day < m.day
) days ON true
LEFT JOIN LATERAL (
    SELECT sum(CASE state WHEN 'posted' THEN tenant_cost_pico ELSE charged_nano * 1000::numeric END)
        AS pico
    FROM billing_usageevent
    WHERE tenant_id = %(tenant)s AND request_id >= billing_first_id_of(m.day)
        AND request_id < m.id
) today ON true
"""


@dataclass(slots=True)
class Pot:
    """One grant and what is left of it, in pico-dollars."""

    grant: CreditGrant
    left_pico: int

    @property
    def rank(self) -> tuple[int, bool, int]:
        return (self.ends_ms, self.grant.kind != GrantKind.GIVEN, self.grant.pk)

    @property
    def from_ms(self) -> int:
        return registers.moment_ms(self.grant.created_at)

    @property
    def ends_ms(self) -> int:
        end = self.grant.expires_at
        return EVER_MS if end is None else registers.moment_ms(end)


@dataclass(frozen=True, slots=True)
class Shown:
    """Every grant of which something is left, in the order in which they pay, and what is owed."""

    pots: list[Pot]
    owed_pico: int


def burn(pots: Iterable[Pot], amount_pico: int) -> int:
    """Take an amount from these pots in order; what none of them has. Pure but for them."""
    for pot in sorted((pot for pot in pots if pot.left_pico > 0), key=lambda pot: pot.rank):
        part = min(pot.left_pico, max(amount_pico, 0))
        pot.left_pico -= part
        amount_pico -= part
    return max(amount_pico, 0)


def ending(tenant: Tenant) -> tuple[list[Pot], dict[int, int]]:
    """The pots of credit that ends, after all that is posted, and the debits of before each of
    their moments and of all. Of those that are closed only such as lived beside one that is not."""
    lived = _beside_open(_ending(tenant))
    if not lived:
        return [], {}
    moments = sorted({at for pot in lived for at in (pot.from_ms, pot.ends_ms)} | {EVER_MS})
    debited = debited_before(tenant, moments)
    for since, until in pairwise(moments):
        live = (pot for pot in lived if pot.from_ms <= since and until <= pot.ends_ms)
        burn(live, debited[until] - debited[since])
    return lived, debited


def ends_of(tenant: Tenant) -> tuple[list[Ending], dict[int, int]]:
    """What the tenant's register is told of credit that ends, and the debits of before each of its
    moments, in nano-dollars."""
    pots, debited = ending(tenant)
    is_open = set(unclosed().filter(tenant=tenant).values_list("pk", flat=True))
    told = [pot for pot in pots if pot.grant.pk in is_open]
    moments = {at for pot in told for at in (pot.from_ms, pot.ends_ms)}
    return [
        Ending(pot.from_ms, pot.ends_ms, min(pot.left_pico // PICO_PER_NANO, REGISTER_NANO_MAX - 1))
        for pot in told
    ], {at: debited[at] // PICO_PER_NANO for at in moments}


def shown(tenant: Tenant, *, debited_pico: int, now: datetime) -> Shown:
    """For people: what is left of each grant once `debited_pico`, all that Redis has debited, is
    paid for. What open requests hold counts as left."""
    pots, debited = ending(tenant)
    now_ms = registers.moment_ms(now)
    live = [pot for pot in pots if pot.from_ms <= now_ms < pot.ends_ms]
    known = debited[EVER_MS] if pots else 0
    # What is not posted yet was admitted just now.
    burn(live, debited_pico - known if pots else 0)
    rest = _rest(tenant)
    owed = _take(rest, tenant, debited_pico - _paid_by_ending(tenant, pots))
    ordered = sorted([*live, *rest], key=lambda pot: pot.rank)
    return Shown([pot for pot in ordered if pot.left_pico > 0], owed)


def _paid_by_ending(tenant: Tenant, pots: list[Pot]) -> int:
    """What credit that ends has paid for, that which is closed and is not among `pots` included."""
    reckoned = {pot.grant.pk for pot in pots}
    closed = GrantUse.objects.filter(grant__tenant=tenant).exclude(grant__in=reckoned)
    paid = int(closed.aggregate(total=Sum("amount_pico"))["total"] or 0)
    capacity = {pot.grant.pk: pot.left_pico for pot in _ending(tenant)}
    return paid + sum(capacity[pot.grant.pk] - pot.left_pico for pot in pots)


def _rest(tenant: Tenant) -> list[Pot]:
    granted = CreditGrant.objects.filter(tenant=tenant, amount_pico__gt=0, expires_at=None)
    return [Pot(grant, int(grant.amount_pico)) for grant in granted.order_by("pk")]


def _take(rest: list[Pot], tenant: Tenant, used_pico: int) -> int:
    """Withdrawals and usage from credit that does not end; what it cannot cover."""
    withdrawn = dict(
        CreditGrant.objects.filter(tenant=tenant, amount_pico__lt=0)
        .exclude(kind=GrantKind.EXPIRY)
        .values_list("kind")
        .annotate(total=Sum("amount_pico"))
    )
    back = -int(withdrawn.pop(GrantKind.PAID, 0))
    short = burn([pot for pot in rest if pot.grant.kind == GrantKind.PAID], back)
    return short + burn(rest, used_pico - int(sum(withdrawn.values())))


def debited_before(tenant: Tenant, moments_ms: Sequence[int]) -> dict[int, int]:
    """Pico-dollars that requests of before each moment were debited, all at one instant."""
    arguments: dict[str, int | list[int] | list[date] | list[str]] = {
        "tenant": tenant.pk,
        "moments": list(moments_ms),
        "days": [registers.at_moment(at).date() for at in moments_ms],
        "ids": [registers.least_id(at) for at in moments_ms],
    }
    with connection.cursor() as cursor:
        cursor.execute(DEBITED_BEFORE, arguments)
        return {int(at_ms): int(pico) for at_ms, pico in cursor.fetchall()}


def _ending(tenant: Tenant) -> list[Pot]:
    granted = CreditGrant.objects.filter(tenant=tenant, amount_pico__gt=0)
    taken = dict(
        CreditGrant.objects.filter(tenant=tenant, kind=GrantKind.EXPIRY)
        .values_list("expires_id")
        .annotate(total=Sum("amount_pico"))
    )
    found = granted.exclude(expires_at=None).order_by("pk")
    return [Pot(grant, int(grant.amount_pico) + int(taken.get(grant.pk, 0))) for grant in found]


def _beside_open(pots: list[Pot]) -> list[Pot]:
    of_these = unclosed().filter(pk__in=[pot.grant.pk for pot in pots])
    open_ids = set(of_these.values_list("pk", flat=True))
    lived = [pot for pot in pots if pot.grant.pk in open_ids]
    while lived:
        first = min(pot.from_ms for pot in lived)
        beside = [pot for pot in pots if pot.ends_ms > first]
        if len(beside) == len(lived):
            break
        lived = beside
    return lived


def unclosed() -> QuerySet[CreditGrant]:
    """Credit that ends of which nobody has written down yet what it paid for and what was lost."""
    return CreditGrant.objects.filter(
        amount_pico__gt=0, expires_at__isnull=False, uses=None, expiries=None
    )
