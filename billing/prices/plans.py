"""Which plan each tenant is on, from which moment on, and what is to come.

A request is priced by the plan that held when it was admitted, however late it is counted. So no
assignment begins in the past; one that is to come may be withdrawn until it begins. One begins at
an instant. Writers hold the tenant's row.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery

from billing import audit, registers
from billing.errors import PriceRefused
from billing.models import PlanAssignment, PriceList, Tenant
from billing.prices.price_spans import ListSpan, ListSpans

LIST_PRICES: Final = "list prices"
DAY_LENGTH: Final = len("2026-12-01")
NEITHER: Final = "neither a day (2026-12-01) nor a moment with its offset"
COMING_MAX: Final = 24
MILLISECOND: Final = timedelta(milliseconds=1)
AHEAD_MAX: Final = timedelta(days=2 * 366)


def assign(
    *,
    tenant: Tenant,
    plan: PriceList | None,
    actor: str,
    now: datetime,
    begins_at: datetime | None = None,
    reason: str = "",
) -> None:
    """Put a tenant on a plan, or back on the list prices, from now or from a later moment on.

    PriceRefused where that moment is past, too far off or another assignment's. What is to come
    after it stays.
    """
    if plan is not None and plan.kind != PriceList.Kind.PLAN:
        raise PriceRefused("only a plan's prices are for tenants to share")
    when = now if begins_at is None else begins_at
    _check_moment(when, now)
    with transaction.atomic():
        locked = Tenant.objects.select_for_update().get(pk=tenant.pk)
        standing = _assignment_at(locked, when)
        before = None if standing is None else standing.plan
        if before == plan:
            return
        if standing is not None and standing.assigned_at == when:
            raise PriceRefused(f"at that moment begins {_name(before)}: withdraw that first")
        if when > now and len(coming([locked.pk], now)) >= COMING_MAX:
            raise PriceRefused(f"no more than {COMING_MAX} plans of a tenant are to come")
        PlanAssignment.objects.create(
            tenant=locked,
            plan=plan,
            assigned_at=when,
            assigned_by=actor[: audit.NAME_LENGTH_MAX],
            recorded_at=now,
        )
        audit.record(
            actor=actor,
            action="tenant.plan",
            subject=tenant.slug,
            tenant=tenant,
            before={"plan": slug_of(before)},
            after={"plan": slug_of(plan)} | ({"from": when.isoformat()} if when > now else {}),
            reason=reason,
            now=now,
        )


def _check_moment(when: datetime, now: datetime) -> None:
    if when.tzinfo is None:
        raise PriceRefused("the moment from which a plan holds needs a time zone")
    if when < now:
        raise PriceRefused("a plan holds from now or later: what was rated stays as it is")
    if when > now + AHEAD_MAX:
        raise PriceRefused("a plan begins within two years")


def withdraw(
    *, tenant: Tenant, assignment_id: int, actor: str, now: datetime, reason: str = ""
) -> None:
    """Take back an assignment that is to come; PriceRefused once it has begun, or was taken back.

    Who was on a plan before it stays on it.
    """
    with transaction.atomic():
        locked = Tenant.objects.select_for_update().get(pk=tenant.pk)
        found = PlanAssignment.objects.filter(tenant=locked, pk=assignment_id)
        assignment = found.select_related("plan").first()
        if assignment is None:
            raise PriceRefused("this tenant has no such plan to come")
        if assignment.withdrawn_at is not None:
            raise PriceRefused("it is withdrawn already")
        if assignment.assigned_at <= now:
            raise PriceRefused("it has begun: put the tenant on another plan instead")
        assignment.withdrawn_at, assignment.withdrawn_by = now, actor[: audit.NAME_LENGTH_MAX]
        assignment.save(update_fields=["withdrawn_at", "withdrawn_by"])
        audit.record(
            actor=actor,
            action="tenant.plan_withdrawn",
            subject=tenant.slug,
            tenant=tenant,
            before={"plan": slug_of(assignment.plan), "from": assignment.assigned_at.isoformat()},
            reason=reason,
            now=now,
        )


def moment_of(stated: object, zone: str) -> datetime:
    """A moment with its offset, or a day: from its first moment on, on the tenant's calendar.

    Where clocks skip midnight that is the moment of the skip. PriceRefused where it is neither.
    """
    if isinstance(stated, str):
        stated = _parsed(stated)
    if not isinstance(stated, date):
        raise PriceRefused(f"{stated!r} is {NEITHER}")
    if not isinstance(stated, datetime):
        stated = datetime(stated.year, stated.month, stated.day, tzinfo=ZoneInfo(zone))
    if stated.tzinfo is None:
        raise PriceRefused(f"{stated.isoformat()} says no time zone: end it with Z or an offset")
    try:
        return stated.astimezone(UTC)
    except OverflowError:
        raise PriceRefused(f"{stated.isoformat()} is {NEITHER}") from None


def _parsed(stated: str) -> date:
    read = date.fromisoformat if len(stated) == DAY_LENGTH else datetime.fromisoformat
    try:
        return read(stated)
    except ValueError:
        raise PriceRefused(f"{stated!r} is {NEITHER}") from None


def known() -> list[PriceList]:
    """Every plan that tenants can be put on."""
    return list(PriceList.objects.filter(kind=PriceList.Kind.PLAN).order_by("slug"))


def named(slug: str | None) -> PriceList | None:
    """The plan of that name, none for the list prices; PriceRefused where there is no such plan."""
    if slug is None:
        return None
    plan = PriceList.objects.filter(kind=PriceList.Kind.PLAN, slug=slug).first()
    if plan is None:
        raise PriceRefused(f"there is no plan {slug}")
    return plan


def of(tenant: Tenant, when: datetime) -> PriceList | None:
    """The plan that a tenant is on at a moment."""
    found = _assignment_at(tenant, when)
    return None if found is None else found.plan


def _assignment_at(tenant: Tenant, when: datetime) -> PlanAssignment | None:
    begun = _standing().filter(tenant=tenant, assigned_at__lte=when)
    return begun.select_related("plan").order_by("-assigned_at").first()


def coming(tenants: Collection[int], now: datetime) -> list[PlanAssignment]:
    """What has not begun, of these tenants, the next one first."""
    later = _standing().filter(tenant_id__in=tenants, assigned_at__gt=now)
    return list(later.select_related("plan").order_by("assigned_at", "tenant_id"))


def at(when: datetime, tenants: Collection[int] | None = None) -> dict[int, int]:
    """The plan of each tenant (or of these) that is on one at a moment, both by their ids."""
    begun = _standing().filter(assigned_at__lte=when)
    if tenants is not None:
        begun = begun.filter(tenant_id__in=tenants)
    latest = begun.order_by("tenant_id", "-assigned_at").distinct("tenant_id")
    rows = latest.values_list("tenant_id", "plan_id")
    return {tenant: plan for tenant, plan in rows if plan is not None}


def tenants_on(plan: PriceList, when: datetime) -> "QuerySet[Tenant]":
    """Who is on a plan at a moment."""
    begun = _standing().filter(tenant=OuterRef("pk"), assigned_at__lte=when)
    latest = begun.order_by("-assigned_at").values("plan")[:1]
    return Tenant.objects.alias(plan_then=Subquery(latest)).filter(plan_then=plan.pk)


def lists_by_tenant(tenants: Iterable[int], *, since: datetime) -> dict[int, ListSpans]:
    """The price lists of each of these tenants from a moment on, the one that goes first first."""
    wanted = set(tenants)
    own = _own(wanted)
    plans: dict[int, list[tuple[int, int | None]]] = defaultdict(list)
    begun = at(since, wanted)
    for tenant in wanted:
        plans[tenant].append((0, begun.get(tenant)))
    for later in coming(wanted, since):
        plans[later.tenant_id].append((_first_ms(later.assigned_at), later.plan_id))
    return {
        tenant: tuple(ListSpan(from_ms, _lists(own.get(tenant), plan)) for from_ms, plan in spans)
        for tenant, spans in plans.items()
    }


def lists_of(tenant: int, when: datetime) -> tuple[int, ...]:
    """The price lists by which a tenant's request of that moment is priced."""
    return _lists(_own([tenant]).get(tenant), at(when, [tenant]).get(tenant))


def _own(tenants: Collection[int]) -> dict[int, int]:
    return dict(PriceList.objects.filter(tenant_id__in=tenants).values_list("tenant_id", "pk"))


def _lists(own: int | None, plan: int | None) -> tuple[int, ...]:
    """A tenant's own prices go before its plan's."""
    return tuple(pk for pk in (own, plan) if pk is not None)


def _first_ms(when: datetime) -> int:
    """The first whole millisecond that is not before a moment: requests are dated in these."""
    return -((registers.EPOCH - when) // MILLISECOND)


def texts(tenants: Sequence[Tenant], now: datetime) -> dict[int, str]:
    """Whose prices each of these tenants pays and will pay, by the days of its own calendar."""
    ids = [tenant.pk for tenant in tenants]
    standing = at(now, ids)
    named = PriceList.objects.in_bulk(set(standing.values()))
    later: dict[int, list[PlanAssignment]] = defaultdict(list)
    for row in coming(ids, now):
        later[row.tenant_id].append(row)
    return {
        tenant.pk: in_words(
            named.get(standing.get(tenant.pk, 0)), later[tenant.pk], tenant.time_zone
        )
        for tenant in tenants
    }


def in_words(plan: PriceList | None, later: Sequence[PlanAssignment], zone: str) -> str:
    """ "Startup; Scale from 1 December 2026": whose prices are paid, and will be."""
    where = ZoneInfo(zone)
    return "; ".join(
        [
            _name(plan),
            *(f"{_name(row.plan)} from {moment_text(row.assigned_at, where)}" for row in later),
        ]
    )


def moment_text(when: datetime, where: ZoneInfo) -> str:
    """A day of this calendar, with the hour where it does not begin with the day."""
    begins = when.astimezone(where)
    day = datetime(begins.year, begins.month, begins.day, tzinfo=where)
    is_first = when == day.astimezone(UTC)
    return day_text(begins) if is_first else f"{day_text(begins)}, {begins:%H:%M %Z}"


def day_text(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _standing() -> "QuerySet[PlanAssignment]":
    return PlanAssignment.objects.filter(withdrawn_at=None)


def slug_of(plan: PriceList | None) -> str | None:
    return None if plan is None else plan.slug


def _name(plan: PriceList | None) -> str:
    return LIST_PRICES if plan is None else plan.name
