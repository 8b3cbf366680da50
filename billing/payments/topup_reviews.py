"""Purchases that only a person can end: another sum was paid than was asked for, or the processor
never said what became of it. Its money becomes credit, or it has failed; either with a note."""

from datetime import datetime
from typing import Final

from django.db import transaction

from billing import audit
from billing.credit import tax
from billing.errors import CreditRefused
from billing.models import Refund, TopUp
from billing.payments import returns, topups

State = TopUp.State
# Another sum than was asked for may be more, in dollars; above this it is a slip of the hand.
ARRIVED_CENTS_MAX: Final = 2 * topups.NET_CENTS_MAX


def credit(
    *,
    topup_id: int,
    arrived_cents: int,
    reference: str,
    note: str,
    actor: str,
    seller: dict[str, str],
    now: datetime,
) -> TopUp:
    """Grant what has arrived, in dollars with its tax, as if that had been asked for. What went
    back of it meanwhile is taken back at once."""
    with transaction.atomic():
        topup = _waiting(topup_id, note)
        before = _facts(topup)
        topup.payment_reference = topup.payment_reference or _new(reference)
        topup.tax_cents, topup.net_cents = _split(topup, arrived_cents)
        topup.ended_at = now
        topups.complete(topup, seller=seller, now=now)
        _record("topup.credit", topup, before, note=note, actor=actor, now=now)
        cause = Refund.Cause.REFUND if topup.refunded_cents else Refund.Cause.DISPUTE
        returns.reckon(topup, cause=cause, seller=seller, now=now)
    return topup


def close(*, topup_id: int, note: str, actor: str, now: datetime) -> TopUp:
    """Grant nothing for it: its money never came, or was sent back. What the processor still tells
    of its payment changes nothing; where it named none, a payment that comes yet is credit."""
    with transaction.atomic():
        topup = _waiting(topup_id, note)
        before = _facts(topup)
        topup.state, topup.ended_at, topup.failure = State.FAILED, now, note.strip()[:200]
        topup.save()
        _record("topup.close", topup, before, note=note, actor=actor, now=now)
    return topup


def _waiting(topup_id: int, note: str) -> TopUp:
    if not note.strip():
        raise CreditRefused("somebody says why")
    found = TopUp.objects.select_for_update(of=("self",)).select_related("tenant")
    topup = found.get(pk=topup_id)
    if topup.state != State.REVIEW:
        raise CreditRefused(f"the purchase is not under review: {topup.state}")
    return topup


def _new(reference: str) -> str:
    """The processor's name of the payment, which it never told us."""
    named = reference.strip()[:120]
    if not named:
        raise CreditRefused("a payment has a name at the processor")
    if TopUp.objects.filter(payment_reference=named).exists():
        raise CreditRefused("that payment is of another purchase")
    return named


def _split(topup: TopUp, arrived_cents: int) -> tuple[int, int]:
    """Tax and credit in what arrived, in the proportion of what was asked for."""
    if not 0 < arrived_cents <= ARRIVED_CENTS_MAX:
        raise CreditRefused(f"between $0.01 and ${ARRIVED_CENTS_MAX // 100:,} has arrived")
    tax_cents = tax.part_cents(
        before=0, after=arrived_cents, tax_cents=topup.tax_cents, total_cents=topup.total_cents
    )
    if tax_cents >= arrived_cents:
        raise CreditRefused("that is tax alone")
    return tax_cents, arrived_cents - tax_cents


def _facts(topup: TopUp) -> dict[str, str | int]:
    names = ("state", "net_cents", "tax_cents", "payment_reference", "failure")
    return {name: getattr(topup, name) for name in names}


def _record(
    action: str,
    topup: TopUp,
    before: dict[str, str | int],
    *,
    note: str,
    actor: str,
    now: datetime,
) -> None:
    audit.record(
        actor=actor,
        action=action,
        subject=str(topup.key),
        tenant=topup.tenant,
        before=before,
        after=_facts(topup),
        reason=note.strip(),
        now=now,
    )
