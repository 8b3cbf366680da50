"""Terms of a tenant that the management API changes: its plan, its holds, its time zone, when
its credit is low, whether its members need a second factor.

All or nothing, in one transaction. What costs the house something, a plan's prices and how far
limits may be passed, is an operator's to give; a tenant may give it back.
"""

from datetime import datetime
from typing import TypedDict

from django.core.exceptions import PermissionDenied
from django.db import transaction

from billing.holding import hold_modes
from billing.limits import credit_alerts, quotas
from billing.models import Tenant
from billing.prices import plans
from gateway.tenants import sign_in_rules


class Wanted(TypedDict, total=False):
    """What is left out stays as it is."""

    time_zone: str
    hold_mode: str
    overdraft_pico: int
    plan: str | None
    plan_from: str
    withdraw_plan: int
    below_pico: int | None
    second_factor_demanded: bool


def change(
    *, tenant: Tenant, wanted: Wanted, actor: str, is_operator: bool, now: datetime
) -> Tenant:
    """The tenant with its new terms; they hold from the next request on, a plan from its moment.

    PermissionDenied for what only an operator gives; a BillingError changes nothing. `plan_from`
    says when the plan begins: a moment, or a day of the tenant's own calendar.
    """
    if ("plan" in wanted or "withdraw_plan" in wanted) and not is_operator:
        raise PermissionDenied("A plan is given by an operator of the house.")
    with transaction.atomic():
        # First, for its lock comes before the tenant's row: billing/locking.md.
        if "time_zone" in wanted:
            quotas.change_time_zone(tenant=tenant, zone=wanted["time_zone"], actor=actor, now=now)
        locked = Tenant.objects.select_for_update().get(pk=tenant.pk)
        if "hold_mode" in wanted or "overdraft_pico" in wanted:
            _change_holds(locked, wanted, actor=actor, is_operator=is_operator, now=now)
        if "withdraw_plan" in wanted:
            plans.withdraw(
                tenant=locked, assignment_id=wanted["withdraw_plan"], actor=actor, now=now
            )
        if "plan" in wanted:
            _change_plan(locked, wanted, actor=actor, now=now)
        if "below_pico" in wanted:
            credit_alerts.set_threshold(
                tenant=locked, below_pico=wanted["below_pico"], actor=actor, now=now
            )
        if "second_factor_demanded" in wanted:
            sign_in_rules.set_second_factor(
                tenant=locked, is_demanded=wanted["second_factor_demanded"], actor=actor, now=now
            )
    return Tenant.objects.get(pk=tenant.pk)


def _change_plan(locked: Tenant, wanted: Wanted, *, actor: str, now: datetime) -> None:
    stated = wanted.get("plan_from")
    plans.assign(
        tenant=locked,
        plan=plans.named(wanted["plan"]),
        actor=actor,
        now=now,
        begins_at=None if stated is None else plans.moment_of(stated, locked.time_zone),
    )


def _change_holds(
    locked: Tenant, wanted: Wanted, *, actor: str, is_operator: bool, now: datetime
) -> None:
    granted = int(locked.overdraft_pico)
    overdraft = wanted.get("overdraft_pico", granted)
    if overdraft > granted and not is_operator:
        raise PermissionDenied("An overdraft is raised by an operator of the house.")
    hold_modes.set_hold_mode(
        tenant=locked,
        mode=wanted.get("hold_mode", locked.hold_mode),
        overdraft_pico=overdraft,
        actor=actor,
        now=now,
    )
