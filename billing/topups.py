"""Buying credit, whoever processes the payment: started, then paid, failed, refunded.

What is paid becomes credit once, however often the processor says so. A payment of another sum
than was asked for becomes nothing until a person has looked.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import F, Sum

from billing import audit, credit, tax
from billing.errors import CreditRefused
from billing.invoicing import receipts
from billing.ledger import AccountKey, Code, Kind
from billing.models import (
    BillingProfile,
    CreditGrant,
    ProcessorEvent,
    Recharge,
    Tenant,
    TopUp,
)
from billing.models.invoices import PPM
from billing.money import PICO_PER_CENT, half_away

logger = logging.getLogger(__name__)

NET_CENTS_MIN: Final = 500
NET_CENTS_MAX: Final = 10_000_000
# A payment page is closed by then; a tenant cannot open more of them at once than this.
STARTED_LASTS: Final = timedelta(hours=24)
STARTED_MAX: Final = 20
FAILURES_MAX: Final = 3
RECHARGE_PAUSE: Final = timedelta(minutes=10)
State = TopUp.State


def start(
    *,
    tenant: Tenant,
    net_cents: int,
    created_by: str,
    now: datetime,
    is_automatic: bool = False,
) -> TopUp:
    """Write down what is about to be bought; tax comes on top, by the tenant's profile."""
    if not NET_CENTS_MIN <= net_cents <= NET_CENTS_MAX:
        raise CreditRefused(
            f"between ${NET_CENTS_MIN // 100} and ${NET_CENTS_MAX // 100:,} can be bought at once"
        )
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        started = TopUp.objects.filter(
            tenant=tenant, state=State.STARTED, created_at__gt=now - STARTED_LASTS
        )
        if started.count() >= STARTED_MAX:
            raise CreditRefused("too many payments are under way: finish one of them first")
        profile = BillingProfile.objects.filter(tenant=tenant).first()
        return TopUp.objects.create(
            tenant=tenant,
            net_cents=net_cents,
            tax_cents=half_away(net_cents * profile.tax_ppm, PPM) if profile else 0,
            is_automatic=is_automatic,
            created_by=created_by,
            created_at=now,
        )


def act_once(
    *, event_id: str, kind: str, body: bytes, now: datetime, act: Callable[[], str]
) -> str:
    """Carry out what a processor's message asks for, once per id and in one transaction.

    The same message again changes nothing; the same id with another body is refused.
    """
    body_hash = hashlib.sha256(body).digest()
    with transaction.atomic():
        event, is_new = ProcessorEvent.objects.select_for_update().get_or_create(
            event_id=event_id,
            defaults={"kind": kind[:80], "body_hash": body_hash, "received_at": now},
        )
        if is_new:
            event.outcome = act()[:200]
            event.save(update_fields=["outcome"])
            return event.outcome
    if bytes(event.body_hash) != body_hash:
        logger.error("processor event %s came again with another body", event_id)
        raise CreditRefused("this event is known with another body")
    return "known already"


def paid(
    *,
    key: str,
    total_cents: int,
    currency: str,
    reference: str,
    seller: dict[str, str],
    now: datetime,
) -> str:
    """The processor has the money: grant the credit and write the receipt, unless that was done
    or the sum is wrong."""
    with transaction.atomic():
        topup = _locked(key)
        if topup is None:
            logger.error("payment %s of %s cents is for no top-up of ours", reference, total_cents)
            return "no such top-up"
        if topup.state in (State.PAID, State.REVIEW):
            return "known already"
        topup.payment_reference, topup.ended_at = reference[:120], now
        if (total_cents, currency.lower()) != (topup.total_cents, "usd"):
            topup.state = State.REVIEW
            topup.failure = f"paid {total_cents} {currency}, asked {topup.total_cents} usd"[:200]
            topup.save()
            logger.error("top-up %s: %s", topup.key, topup.failure)
            return "another sum than asked for: review"
        topup.grant = _grant(topup, topup.net_cents, "bought")
        _post_tax(topup, topup.tax_cents, key=f"topup:{topup.key}:tax")
        topup.state = State.PAID
        topup.failure = ""
        topup.save()
        receipts.issue(topup, seller=seller, now=now)
        Recharge.objects.filter(tenant=topup.tenant).update(failures=0, failure="")
    return "granted"


def failed(*, key: str, why: str, now: datetime) -> str:
    """The payment did not go through; automatic ones stop after a few in a row."""
    with transaction.atomic():
        topup = _locked(key)
        if topup is None or topup.state != State.STARTED:
            return "nothing to fail"
        topup.state, topup.failure, topup.ended_at = State.FAILED, why[:200], now
        topup.save()
        if topup.is_automatic:
            recharge = Recharge.objects.filter(tenant=topup.tenant)
            recharge.update(failures=F("failures") + 1, failure=why[:200])
            recharge.filter(failures__gte=FAILURES_MAX).update(is_on=False)
    return "failed"


def refunded(*, reference: str, refunded_cents: int, seller: dict[str, str], now: datetime) -> str:
    """Money went back to the payer, in all so far: take back credit and tax in proportion, and
    write the refund note of what went back this time."""
    with transaction.atomic():
        known = TopUp.objects.filter(payment_reference=reference, state=State.PAID).first()
        topup = _locked(str(known.key)) if known else None
        if topup is None:
            return "no such payment"
        total = min(refunded_cents, topup.total_cents)
        if total <= topup.refunded_cents:
            return "known already"
        tax_cents = tax.part_cents(
            before=topup.refunded_cents,
            after=total,
            tax_cents=topup.tax_cents,
            total_cents=topup.total_cents,
        )
        net_cents = total - topup.refunded_cents - tax_cents
        if net_cents:
            _grant(topup, -net_cents, "refunded")
        _post_tax(topup, -tax_cents, key=f"topup:{topup.key}:refund:{total}")
        topup.refunded_cents = total
        topup.save()
        receipts.issue_refund(
            topup, net_cents=net_cents, tax_cents=tax_cents, seller=seller, now=now
        )
    return "credit taken back"


def _locked(key: str) -> TopUp | None:
    return TopUp.objects.select_for_update().select_related("tenant").filter(key=key).first()


def _grant(topup: TopUp, net_cents: int, word: str) -> CreditGrant:
    return credit.grant(
        tenant=topup.tenant,
        amount_pico=net_cents * PICO_PER_CENT,
        reason=f"{word}: {topup.payment_reference}",
        created_by=topup.created_by,
        kind=CreditGrant.Kind.PAID,
    )


def _post_tax(topup: TopUp, tax_cents: int, *, key: str) -> None:
    tax.post(
        debit=AccountKey(Kind.CASH),
        credit=AccountKey(Kind.TAX_PAYABLE),
        tax_cents=tax_cents,
        code=Code.PAYMENT,
        key=key,
        tenant_id=topup.tenant_id,
        memo="tax of bought credit",
    )


def set_recharge(
    *, tenant: Tenant, terms: Mapping[str, int], actor: str, now: datetime
) -> Recharge:
    """Let credit be bought by itself on these terms; what failed before is forgotten."""
    with transaction.atomic():
        before = Recharge.objects.filter(tenant=tenant).values(*terms).first()
        recharge, _ = Recharge.objects.update_or_create(
            tenant=tenant, defaults={**terms, "failures": 0, "failure": ""}
        )
        audit.record(
            actor=actor,
            action="recharge.set",
            subject=tenant.slug,
            tenant=tenant,
            before=before,
            after=terms,
            now=now,
        )
    return recharge


def due(*, now: datetime) -> list[Recharge]:
    """Whose credit is low enough to buy more, within the month's sum, and not just tried."""
    return [
        recharge
        for recharge in Recharge.objects.filter(is_on=True).exclude(card_reference="")
        if _is_due(recharge, now)
    ]


def _is_due(recharge: Recharge, now: datetime) -> bool:
    recent = TopUp.objects.filter(
        tenant=recharge.tenant, is_automatic=True, created_at__gt=now - RECHARGE_PAUSE
    )
    if recent.exists():
        return False
    month = TopUp.objects.filter(
        tenant=recharge.tenant,
        is_automatic=True,
        created_at__year=now.year,
        created_at__month=now.month,
        state__in=(State.STARTED, State.PAID, State.REVIEW),
    ).aggregate(total=Sum("net_cents"))["total"]
    if (month or 0) + recharge.amount_cents > recharge.monthly_max_cents:
        return False
    left_pico = credit.balance(recharge.tenant).left_pico
    return left_pico < recharge.below_cents * PICO_PER_CENT
