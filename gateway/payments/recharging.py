"""Automatic recharges: buys credit with a saved card for tenants that asked for it."""

import logging
from collections.abc import Iterable
from datetime import datetime

from redis.exceptions import RedisError

from billing import topups
from billing.errors import CreditRefused
from billing.models import Recharge, TopUp
from gateway.payments import processor

logger = logging.getLogger(__name__)
BY_ITSELF = "automatic recharge"


def start_due(now: datetime) -> list[TopUp]:
    """Write down the purchases that are due. They must be committed before a card is charged:
    then a crash in between loses none, and the processor's message completes them."""
    if not processor.is_configured():
        return []
    try:
        waiting = topups.due(now=now)
    except RedisError:
        # A balance that is not known is not low.
        return []
    return [topup for recharge in waiting if (topup := _start(recharge, now)) is not None]


def _start(recharge: Recharge, now: datetime) -> TopUp | None:
    try:
        return topups.start(
            tenant=recharge.tenant,
            net_cents=recharge.amount_cents,
            created_by=BY_ITSELF,
            now=now,
            is_automatic=True,
        )
    except CreditRefused as refusal:
        logger.warning("recharge of tenant %s: %s", recharge.tenant_id, refusal)
        return None


def charge(started: Iterable[TopUp], *, now: datetime) -> None:
    """Charge the saved cards of purchases that were written down."""
    for topup in started:
        recharge = Recharge.objects.get(tenant=topup.tenant)
        try:
            outcome = processor.charge_card(topup, recharge, now=now)
        except processor.ProcessorAway as problem:
            outcome = f"not known yet: {problem}"
        logger.info("recharge of tenant %s: %s", topup.tenant_id, outcome)
