"""Credit that is bought by itself when little is left, with a saved card, up to a sum a month.

A tenant has one such purchase open at a time. It is written down before anybody is charged, and the
processor is asked for it, always under the same key and card, until its outcome is known: nothing
else is bought before. What failed counts against the tries, and not against the month's sum.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Q, Sum

from billing import audit, fault_isolation
from billing.credit import balances as credit
from billing.invoicing import calendar_months
from billing.models import Recharge, Refund, Tenant, TopUp
from billing.money import PICO_PER_CENT
from billing.payments import topups

logger = logging.getLogger(__name__)

BY_ITSELF: Final = "automatic recharge"
# After one purchase has ended, and after money went back to the payer.
PAUSE: Final = timedelta(minutes=10)
REFUND_PAUSE: Final = timedelta(hours=24)
ASK_PAUSE: Final = timedelta(minutes=1)
ASK_PAUSE_MAX: Final = timedelta(hours=1)
# A processor that has not said for so long what became of a purchase.
ASKED_MAX: Final = timedelta(days=30)
State = TopUp.State


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


def start_due(*, now: datetime) -> int:
    """Write down the purchases that are due; RedisError while no balance is known."""
    wanted = Recharge.objects.filter(is_on=True, tenant__status=Tenant.Status.ACTIVE)
    found = wanted.exclude(card_reference="").select_related("tenant").order_by("pk")
    started = fault_isolation.each(
        found, lambda r: _is_due(r, now) and _start(r, now), name=lambda r: r.tenant.slug
    )
    return sum(started)


def _is_due(recharge: Recharge, now: datetime) -> bool:
    bought = TopUp.objects.filter(tenant=recharge.tenant, is_automatic=True)
    since = now - PAUSE
    is_recent = Q(created_at__gt=since) | Q(ended_at__gt=since) | Q(due_at__isnull=False)
    if bought.filter(is_recent).exists():
        return False
    went_back = Refund.objects.filter(topup__tenant=recharge.tenant)
    if went_back.filter(issued_at__gt=now - REFUND_PAUSE).exists():
        return False
    if _of_month_cents(recharge.tenant, now) + recharge.amount_cents > recharge.monthly_max_cents:
        return False
    left_pico = credit.balance(recharge.tenant, now=now).left_pico
    return left_pico < recharge.below_cents * PICO_PER_CENT


def _of_month_cents(tenant: Tenant, now: datetime) -> int:
    """What was bought by itself in the month of the tenant's calendar, of which no one knows that
    it failed. A purchase is of the month that it was started in, whenever it is paid."""
    began = calendar_months.this_month(now, tenant.time_zone).start
    bought = TopUp.objects.filter(
        tenant=tenant,
        is_automatic=True,
        created_at__gte=began,
        state__in=(State.PAID, State.REVIEW),
    )
    return bought.aggregate(total=Sum("net_cents"))["total"] or 0


def _start(recharge: Recharge, now: datetime) -> bool:
    try:
        with transaction.atomic():
            TopUp.objects.create(
                tenant=recharge.tenant,
                net_cents=recharge.amount_cents,
                **topups.tax_terms(recharge.tenant, recharge.amount_cents),
                is_automatic=True,
                payer_reference=recharge.payer_reference,
                card_reference=recharge.card_reference,
                due_at=now,
                created_by=BY_ITSELF,
                created_at=now,
            )
    except IntegrityError:
        # Another process has just opened one.
        return False
    return True


def may_send(topup: TopUp) -> bool:
    """Whether this purchase may still be charged where it has not been: not for a tenant that is
    suspended, or that has switched this off since."""
    return Recharge.objects.filter(
        tenant=topup.tenant_id, is_on=True, tenant__status=Tenant.Status.ACTIVE
    ).exists()


def claim_due(*, now: datetime) -> TopUp | None:
    """One open purchase that the processor is to be asked for; whoever asks and falls silent leaves
    it due again later."""
    with transaction.atomic():
        waiting = TopUp.objects.select_for_update(skip_locked=True, of=("self",))
        due = waiting.filter(due_at__lte=now, state=State.STARTED).order_by("due_at", "pk")
        topup = due.select_related("tenant").first()
        if topup is None:
            return None
        topup.tries += 1
        topup.due_at = now + min(ASK_PAUSE * 2 ** min(topup.tries - 1, 12), ASK_PAUSE_MAX)
        topup.save()
    return topup


def give_up(topup: TopUp, *, now: datetime) -> bool:
    """Whether the processor has been asked for too long: then a person has to look."""
    if now - topup.created_at < ASKED_MAX:
        return False
    why = "the payment processor never said what became of it"
    logger.error("top-up %s: %s", topup.key, why)
    return bool(
        TopUp.objects.filter(pk=topup.pk, state=State.STARTED).update(
            state=State.REVIEW, due_at=None, ended_at=now, failure=why
        )
    )
