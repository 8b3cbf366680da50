"""What goes back of bought credit: refunds and disputes, told in any order and any number of times.

A purchase keeps what was refunded and what is disputed, each as the processor tells it; what both
come to is what has to be taken back, or given back where a dispute was won. The difference to what
was taken so far moves credit and tax in proportion, writes a note, and tells the tenant: so every
order of the same messages ends in the same books.
"""

import logging
from datetime import datetime

from django.db import transaction

from billing.credit import tax
from billing.errors import PaymentUnknown
from billing.invoicing import receipts
from billing.models import AlertChannel, AlertDelivery, Dispute, Recharge, Refund, TopUp
from billing.payments import topups
from billing.payments.facts import Disputed, Refunded

logger = logging.getLogger(__name__)

Cause = Refund.Cause
ALSO_OFF = "a payment is disputed"


def refunded(fact: Refunded, *, seller: dict[str, str], now: datetime) -> str:
    """Money went back to the payer, in all so far: take back credit and tax in proportion."""
    with transaction.atomic():
        topup = _payment(fact.reference)
        total = _bounded(topup, fact.refunded_cents)
        if total <= topup.refunded_cents:
            return "known already"
        topup.refunded_cents = total
        return reckon(topup, cause=Cause.REFUND, seller=seller, now=now)


def disputed(fact: Disputed, *, seller: dict[str, str], now: datetime) -> str:
    """The payer disputes a payment: its credit is taken while the money is gone, and given back
    where the dispute is won. Nothing is bought by itself with a card whose payer disputes."""
    with transaction.atomic():
        topup = _payment(fact.reference)
        dispute, _ = Dispute.objects.get_or_create(
            dispute_id=fact.dispute_id,
            defaults={"topup": topup, "amount_cents": fact.amount_cents, "opened_at": now},
        )
        dispute.stages = sorted({*dispute.stages, str(fact.stage)})
        dispute.amount_cents = max(dispute.amount_cents, fact.amount_cents)
        dispute.save()
        taken = [each.amount_cents for each in topup.disputes.all() if each.is_taken]
        topup.disputed_cents = _bounded(topup, sum(taken))
        if dispute.is_taken:
            recharge = Recharge.objects.filter(tenant=topup.tenant)
            recharge.update(is_on=False, failure=ALSO_OFF)
        logger.warning("dispute %s of payment %s: %s", dispute, fact.reference, fact.stage)
        return reckon(topup, cause=Cause.DISPUTE, seller=seller, now=now)


def _payment(reference: str) -> TopUp:
    """The purchase that this payment was for, locked; PaymentUnknown where there is none yet."""
    paid = TopUp.objects.filter(payment_reference=reference).first()
    topup = topups.locked(str(paid.key)) if paid and reference else None
    if topup is None:
        raise PaymentUnknown("no such payment")
    return topup


def _bounded(topup: TopUp, cents: int) -> int:
    """No more goes back than was paid; how much that is stands where it is not under review."""
    is_doubted = topup.state == TopUp.State.REVIEW
    return cents if is_doubted else min(cents, topup.total_cents)


def reckon(topup: TopUp, *, cause: str, seller: dict[str, str], now: datetime) -> str:
    """Take back, or give back, what is between what is gone and what was taken so far."""
    if topup.state != TopUp.State.PAID:
        topup.save()
        return "noted: nothing had been granted for it"
    gone = min(topup.refunded_cents + topup.disputed_cents, topup.total_cents)
    before, topup.returned_cents = topup.returned_cents, gone
    topup.save()
    if gone == before:
        return "noted: nothing to take or to give back"
    tax_cents = tax.part_cents(
        before=before, after=gone, tax_cents=topup.tax_cents, total_cents=topup.total_cents
    )
    net_cents = gone - before - tax_cents
    note = receipts.issue_refund(
        topup,
        cause=cause if gone > before else Cause.DISPUTE_WON,
        net_cents=net_cents,
        tax_cents=tax_cents,
        seller=seller,
        now=now,
    )
    if net_cents:
        topups.grant(topup, -net_cents, Cause(note.cause).label)
    topups.post_tax(topup, -tax_cents, key=f"topup:{topup.key}:{note.number}")
    AlertDelivery.objects.bulk_create(
        AlertDelivery(refund=note, channel=channel, due_at=now)
        for channel in AlertChannel.objects.filter(tenant=topup.tenant)
    )
    return "credit taken back" if gone > before else "credit given back"
