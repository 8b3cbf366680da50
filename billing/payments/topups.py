"""Buying credit, whoever processes the payment: started, then paid or failed.

What is paid becomes credit once, however often the processor says so. A payment of another sum
than was asked for becomes nothing until a person has looked. What goes back: `returns`; what is
bought by itself: `recharges`.
"""

import logging
import uuid
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import F

from billing.books.ledger import AccountKey, Code, Kind
from billing.credit import balances as credit
from billing.credit import tax
from billing.errors import CreditRefused, PaymentDoubted, PaymentUnknown
from billing.invoicing import receipts, untaxed
from billing.models import BillingProfile, CreditGrant, Recharge, Tenant, TopUp
from billing.money import PICO_PER_CENT, half_away
from billing.payments.facts import Failed, Paid
from billing.rates import PPM

logger = logging.getLogger(__name__)

NET_CENTS_MIN: Final = 500
NET_CENTS_MAX: Final = 10_000_000
# A payment page is closed by then; a tenant cannot open more of them at once than this.
STARTED_LASTS: Final = timedelta(hours=24)
STARTED_MAX: Final = 20
FAILURES_MAX: Final = 3
State = TopUp.State
OPEN: Final = (State.STARTED, State.REVIEW)


def start(*, tenant: Tenant, net_cents: int, created_by: str, now: datetime) -> TopUp:
    """Write down what is about to be bought; tax comes on top, by the tenant's profile."""
    if not NET_CENTS_MIN <= net_cents <= NET_CENTS_MAX:
        raise CreditRefused(
            f"between ${NET_CENTS_MIN // 100} and ${NET_CENTS_MAX // 100:,} can be bought at once"
        )
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)
        pages = TopUp.objects.filter(
            tenant=tenant,
            state=State.STARTED,
            is_automatic=False,
            created_at__gt=now - STARTED_LASTS,
        )
        if pages.count() >= STARTED_MAX:
            raise CreditRefused("too many payments are under way: finish one of them first")
        return TopUp.objects.create(
            tenant=tenant,
            net_cents=net_cents,
            **tax_terms(tenant, net_cents),
            created_by=created_by,
            created_at=now,
        )


def tax_terms(tenant: Tenant, net_cents: int) -> dict[str, int | bool]:
    """The tax on a purchase; it waits for the usage's invoice where nobody said who buys yet."""
    profile = BillingProfile.objects.filter(tenant=tenant).first()
    if profile is None:
        return {"tax_cents": 0, "is_taxed_later": True}
    return {"tax_cents": half_away(net_cents * profile.tax_ppm, PPM), "is_taxed_later": False}


def paid(fact: Paid, *, seller: dict[str, str], now: datetime) -> str:
    """The processor has the money: grant the credit and write the receipt, unless that was done
    or the sum is wrong."""
    with transaction.atomic():
        topup = locked(fact.key)
        if topup is None:
            raise PaymentUnknown("no such top-up")
        if topup.payment_reference:
            if topup.payment_reference != fact.reference[:120]:
                raise PaymentDoubted(f"paid twice: {topup.payment_reference}, {fact.reference}")
            return "known already"
        topup.payment_reference, topup.ended_at = fact.reference[:120], now
        topup.due_at = None
        if (fact.total_cents, fact.currency.lower()) != (topup.total_cents, "usd"):
            topup.state = State.REVIEW
            said = f"paid {fact.total_cents} {fact.currency}, asked {topup.total_cents} usd"
            topup.failure = said[:200]
            topup.save()
            logger.error("top-up %s: %s", topup.key, topup.failure)
            return "another sum than asked for: review"
        complete(topup, seller=seller, now=now)
    return "granted"


def complete(topup: TopUp, *, seller: dict[str, str], now: datetime) -> None:
    """Grant what this locked purchase has bought, with its tax and its receipt."""
    topup.grant = grant(topup, topup.net_cents, "bought")
    post_tax(topup, topup.tax_cents, key=f"topup:{topup.key}:tax")
    topup.state, topup.failure = State.PAID, ""
    topup.save()
    receipts.issue(topup, seller=seller, now=now)
    Recharge.objects.filter(tenant=topup.tenant).update(failures=0, failure="")


def failed(fact: Failed, *, now: datetime) -> str:
    """The payment did not go through; automatic ones stop after a few in a row. Told late, it also
    ends a purchase that waits for a person because nobody could say what became of it."""
    with transaction.atomic():
        topup = locked(fact.key)
        if topup is None or topup.payment_reference or topup.state not in OPEN:
            return "nothing to fail"
        topup.state, topup.failure, topup.ended_at = State.FAILED, fact.why[:200], now
        topup.due_at = None
        topup.save()
        if topup.is_automatic:
            recharge = Recharge.objects.filter(tenant=topup.tenant)
            recharge.update(failures=F("failures") + 1, failure=fact.why[:200])
            recharge.filter(failures__gte=FAILURES_MAX).update(is_on=False)
    return "failed"


def find(key: str) -> TopUp | None:
    """The purchase of this key; None for what is no key of ours."""
    try:
        known = uuid.UUID(key)
    except ValueError:
        return None
    return TopUp.objects.filter(key=known).select_related("tenant").first()


def locked(key: str) -> TopUp | None:
    """The same, locked."""
    known = find(key)
    if known is None:
        return None
    topups = TopUp.objects.select_for_update(of=("self",)).select_related("tenant")
    return topups.get(pk=known.pk)


def grant(topup: TopUp, net_cents: int, word: str) -> CreditGrant:
    amount_pico = net_cents * PICO_PER_CENT
    made = credit.grant(
        tenant=topup.tenant,
        amount_pico=amount_pico,
        reason=f"{word}: {topup.payment_reference}",
        created_by=topup.created_by,
        kind=CreditGrant.Kind.PAID,
    )
    untaxed.mark(made, amount_pico if topup.is_taxed_later else 0)
    return made


def post_tax(topup: TopUp, tax_cents: int, *, key: str) -> None:
    tax.post(
        debit=AccountKey(Kind.CASH),
        credit=AccountKey(Kind.TAX_PAYABLE),
        tax_cents=tax_cents,
        code=Code.PAYMENT,
        key=key,
        tenant_id=topup.tenant_id,
        memo="tax of bought credit",
    )
