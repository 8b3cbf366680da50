"""A tenant's plans as a file declares them: which one holds now, and which are to come.

What is to come stands in the file with its moment; once that has passed, it is what holds. So a
file says the same before and after, and what it names no more is withdrawn.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing.errors import PriceRefused
from billing.models import PlanAssignment, Tenant
from billing.prices import plans
from gateway.declared.change import Change, Run
from gateway.declared.document import DeclaredTenant, DocumentRefused

UTC_NAME: Final = "UTC"
Steps = Mapping[datetime, str | None]  # the slug of the plan that begins then; None: list prices


def changes(declared: DeclaredTenant, there: Tenant | None, now: datetime) -> Iterator[Change]:
    slug, zone = declared.slug, there.time_zone if there else UTC_NAME
    dated = _dated(declared, zone)
    standing = plans.slug_of(plans.of(there, now)) if there else None
    wanted = _wanted(declared, dated, standing, now)
    _check(slug, {wanted, *dated.values()})
    steps = _steps(wanted, dated, now)
    coming = {row.assigned_at: row for row in plans.coming([there.pk], now)} if there else {}
    kept = {
        begins: row
        for begins, row in coming.items()
        if begins in steps and steps[begins] == plans.slug_of(row.plan)
    }
    if declared.plans_to_come is not msgspec.UNSET:
        for begins in coming.keys() - kept.keys():
            yield _withdrawal(slug, coming[begins], zone)
    if standing != wanted:
        before = _called(standing) if there else ""
        yield Change(f"{slug}, plan", before, _called(wanted), partial(_assign, slug, wanted, None))
    for begins, plan in steps.items():
        if begins not in kept:
            subject = _subject(slug, begins, zone)
            yield Change(subject, "", _called(plan), partial(_assign, slug, plan, begins))


def _dated(declared: DeclaredTenant, zone: str) -> Steps:
    """What the file says of moments, past ones included, the first one first."""
    dated: dict[datetime, str | None] = {}
    for stated in declared.plans_to_come or ():
        try:
            begins = plans.moment_of(stated.begins, zone)
        except PriceRefused as refusal:
            raise DocumentRefused(f"{declared.slug}: {refusal}") from refusal
        if begins in dated:
            raise DocumentRefused(f"{declared.slug}: two plans begin at {begins.isoformat()}")
        dated[begins] = stated.plan
    return dict(sorted(dated.items()))


def _wanted(
    declared: DeclaredTenant, dated: Steps, standing: str | None, now: datetime
) -> str | None:
    """What the file says of this moment; what is there where it is silent."""
    begun = [plan for begins, plan in dated.items() if begins <= now]
    if begun:
        return begun[-1]
    return standing if declared.plan is msgspec.UNSET else declared.plan


def _steps(wanted: str | None, dated: Steps, now: datetime) -> Steps:
    """What is to come and differs from what it follows."""
    steps: dict[datetime, str | None] = {}
    for begins, plan in dated.items():
        if begins > now and plan != wanted:
            steps[begins] = wanted = plan
    return steps


def _check(slug: str, named: set[str | None]) -> None:
    known = [plan.slug for plan in plans.known()]
    for plan in sorted(name for name in named if name is not None and name not in known):
        names = ", ".join(known) or "none; the admin console makes them"
        raise DocumentRefused(f"{slug}: there is no plan {plan}. There are: {names}")


def _assign(slug: str, plan: str | None, begins: datetime | None, run: Run) -> None:
    plans.assign(
        tenant=Tenant.objects.get(slug=slug),
        plan=plans.named(plan),
        begins_at=begins,
        actor=run.actor,
        now=run.now,
    )


def _withdrawal(slug: str, coming: PlanAssignment, zone: str) -> Change:
    def make(run: Run) -> None:
        tenant = Tenant.objects.get(slug=slug)
        plans.withdraw(tenant=tenant, assignment_id=coming.pk, actor=run.actor, now=run.now)

    before = _called(plans.slug_of(coming.plan))
    return Change(_subject(slug, coming.assigned_at, zone), before, "withdrawn", make)


def _subject(slug: str, begins: datetime, zone: str) -> str:
    return f"{slug}, plan from {plans.moment_text(begins, ZoneInfo(zone))}"


def _called(slug: str | None) -> str:
    return slug or plans.LIST_PRICES
