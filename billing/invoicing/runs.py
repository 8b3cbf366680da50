"""The monthly round: which tenants get a draft, and when. People finalise what they looked at."""

import logging
from datetime import datetime

from billing import apart
from billing.errors import BillingError
from billing.invoicing import documents, periods
from billing.models import Invoice, Tenant

logger = logging.getLogger(__name__)

BY_THE_CLOCK = "invoicing"
Refused = list[tuple[Tenant, str]]


def draft_due(*, now: datetime) -> list[Invoice]:
    """Draft the month that ended at least `GRACE` ago, where there is no invoice of it yet."""

    def draft(tenant: Tenant) -> Invoice | None:
        period = periods.last_month(now, tenant.time_zone)
        if now - period.end < documents.GRACE or documents.is_known(tenant, period):
            return None
        return documents.draft(tenant=tenant, period=period, created_by=BY_THE_CLOCK, now=now)

    drafted = apart.each(_billed(), draft, name=lambda tenant: tenant.slug)
    return [invoice for invoice in drafted if invoice is not None]


def draft_last_month(*, now: datetime, created_by: str) -> tuple[list[Invoice], Refused]:
    """Make or renew last month's draft of every tenant with a billing profile, at once. One
    tenant's trouble is told and does not keep the others waiting."""
    made: list[Invoice] = []
    refused: Refused = []
    for tenant in _billed():
        try:
            period = periods.last_month(now, tenant.time_zone)
            made.append(
                documents.draft(tenant=tenant, period=period, created_by=created_by, now=now)
            )
        except BillingError as refusal:
            refused.append((tenant, str(refusal)))
        except Exception as problem:
            if apart.ends_all(problem):
                raise
            logger.exception("the draft of %s failed", tenant)
            refused.append((tenant, f"failed: {type(problem).__name__}"))
    return made, refused


def _billed() -> list[Tenant]:
    return list(Tenant.objects.filter(billing_profile__isnull=False).order_by("pk"))
