"""The monthly round: which tenants get a draft, and when. People finalise what they looked at."""

from datetime import datetime

from billing import fault_isolation
from billing.errors import BillingError
from billing.integrity import anchors
from billing.invoicing import calendar_months, documents
from billing.models import Invoice, Tenant

BY_THE_CLOCK = "invoicing"
Refused = list[tuple[Tenant, str]]


def draft_due(*, now: datetime) -> list[Invoice]:
    """Draft the month that ended at least `GRACE` ago, where there is no invoice of it yet."""

    def draft(tenant: Tenant) -> Invoice | None:
        period = calendar_months.last_month(now, tenant.time_zone)
        if now - period.end < documents.GRACE or documents.is_known(tenant, period):
            return None
        return documents.draft(tenant=tenant, period=period, created_by=BY_THE_CLOCK, now=now)

    with fault_isolation.told_at_the_end():
        drafted = fault_isolation.each(_billed(), draft, name=lambda tenant: tenant.slug)
        made = [invoice for invoice in drafted if invoice is not None]
        if made:
            with fault_isolation.apart("the anchor of these drafts"):
                anchors.give(now=now, actor=BY_THE_CLOCK)
    return made


def draft_last_month(*, now: datetime, created_by: str) -> tuple[list[Invoice], Refused]:
    """Make or renew last month's draft of every tenant with a billing profile, at once. One
    tenant's trouble is told and does not keep the others waiting."""
    made: list[Invoice] = []
    refused: Refused = []
    for tenant in _billed():
        failed: list[fault_isolation.Failure] = []
        with fault_isolation.kept(failed, tenant.slug):
            try:
                period = calendar_months.last_month(now, tenant.time_zone)
                made.append(
                    documents.draft(tenant=tenant, period=period, created_by=created_by, now=now)
                )
            except BillingError as refusal:
                refused.append((tenant, str(refusal)))
        refused += [(tenant, f"failed: {type(problem).__name__}") for _, problem in failed]
    return made, refused


def _billed() -> list[Tenant]:
    return list(Tenant.objects.filter(billing_profile__isnull=False).order_by("pk"))
