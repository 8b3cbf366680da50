"""Adjusts what a tenant was charged, outside usage: credit moves at once, with a numbered note.

The note is a line of the tenant's next invoice, up or down: what was given back lessens what that
one taxes, what was charged more is due there.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Final

from django.conf import settings
from django.db import transaction

from billing import audit
from billing.credit import balances as credit
from billing.errors import CreditRefused
from billing.invoicing import numbers
from billing.invoicing.receipts import buyer_as_of_now
from billing.models import (
    AdjustmentNote,
    AlertChannel,
    AlertDelivery,
    CreditGrant,
    NumberSeries,
    Tenant,
)

Cause = AdjustmentNote.Cause
# What a rebate is counted from: itself is not part of it.
SPENDING: Final = (Cause.CORRECTION, Cause.SERVICE, Cause.OTHER)


def post(
    *,
    tenant: Tenant,
    cause: str,
    amount_pico: int,
    months: Mapping[date, int],
    reason: str,
    created_by: str,
    now: datetime,
) -> AdjustmentNote:
    """Give this much back (negative: charge it), for requests of these UTC months, which add up to
    it. Takes the next number, tells the tenant's channels; locks the tenant's row."""
    if not reason.strip():
        raise CreditRefused("an adjustment needs a reason")
    if sum(months.values()) != amount_pico or any(month.day != 1 for month in months):
        raise CreditRefused("the months of an adjustment begin with a first and add up to it")
    with transaction.atomic():
        grant = credit.grant(
            tenant=tenant,
            amount_pico=amount_pico,
            reason=reason,
            created_by=created_by,
            kind=CreditGrant.Kind.ADJUSTMENT,
        )
        note = AdjustmentNote.objects.create(
            tenant=tenant,
            number=numbers.next_number(NumberSeries.Document.ADJUSTMENT, now),
            cause=Cause(cause),
            reason=reason[:200],
            grant=grant,
            months={f"{month:%Y-%m}": str(pico) for month, pico in months.items() if pico},
            parties={"seller": settings.INVOICE_SELLER, "buyer": buyer_as_of_now(tenant)},
            issued_at=now,
        )
        audit.record(
            actor=created_by,
            action="credit.adjust",
            subject=note.number,
            tenant=tenant,
            after={"amount_pico": amount_pico, "cause": note.cause},
            reason=reason,
            now=now,
        )
        AlertDelivery.objects.bulk_create(
            AlertDelivery(adjustment=note, channel=channel, due_at=now)
            for channel in AlertChannel.objects.filter(tenant=tenant)
        )
    return note


def months_of(note: AdjustmentNote) -> dict[date, int]:
    return {date.fromisoformat(f"{month}-01"): int(pico) for month, pico in note.months.items()}


def given_pico(tenant: Tenant, month: date) -> int:
    """What was given back of the spending of a UTC month; negative where more was charged."""
    notes = AdjustmentNote.objects.filter(
        tenant=tenant, cause__in=SPENDING, months__has_key=f"{month:%Y-%m}"
    )
    return sum(months_of(note)[month] for note in notes)
