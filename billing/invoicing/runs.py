"""The monthly round: which tenants get a draft, and when. People finalise what they looked at."""

from datetime import datetime

from billing.errors import BillingError
from billing.invoicing import documents, periods
from billing.models import Invoice, Tenant

BY_THE_CLOCK = "invoicing"
Refused = list[tuple[Tenant, str]]


def draft_due(*, now: datetime) -> list[Invoice]:
    """Draft the month that ended at least `GRACE` ago, where there is no invoice of it yet."""
    due = []
    for tenant in _billed():
        period = periods.last_month(now, tenant.time_zone)
        if now - period.end < documents.GRACE:
            continue
        if not documents.is_known(tenant, period):
            due.append(tenant)
    made, _ = _draft(due, now=now, created_by=BY_THE_CLOCK)
    return made


def draft_last_month(*, now: datetime, created_by: str) -> tuple[list[Invoice], Refused]:
    """Make or renew last month's draft of every tenant with a billing profile, at once."""
    return _draft(_billed(), now=now, created_by=created_by)


def _billed() -> list[Tenant]:
    return list(Tenant.objects.filter(billing_profile__isnull=False).order_by("pk"))


def _draft(
    tenants: list[Tenant], *, now: datetime, created_by: str
) -> tuple[list[Invoice], Refused]:
    """One tenant's trouble is told and does not keep the others waiting."""
    made: list[Invoice] = []
    refused: Refused = []
    for tenant in tenants:
        period = periods.last_month(now, tenant.time_zone)
        try:
            made.append(
                documents.draft(tenant=tenant, period=period, created_by=created_by, now=now)
            )
        except BillingError as refusal:
            refused.append((tenant, str(refusal)))
    return made, refused
