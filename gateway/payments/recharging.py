"""Automatic recharges: buys credit with a saved card for tenants that asked for it."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from redis.exceptions import RedisError

from billing import fault_isolation
from billing.models import TopUp
from billing.payments import recharges
from gateway.payments import processor

logger = logging.getLogger(__name__)

# One run asks for so many purchases, and begins no other after so long: the rest is due at once.
PER_RUN_MAX: Final = 100
RUN_S_MAX: Final = 10.0


def start_due(now: datetime) -> int:
    """Write down the purchases that are due. They must be committed before a card is charged:
    then a crash in between loses none, and the next run asks for them."""
    if not processor.is_configured():
        return 0
    try:
        return recharges.start_due(now=now)
    except RedisError:
        # A balance that is not known is not low.
        return 0


def ask_due(now: datetime, *, monotonic: Callable[[], float] = time.monotonic) -> int:
    """Charge the saved cards of purchases that were written down, and find out what became of
    those whose outcome is not known; returns how many are known now."""
    known, until = 0, monotonic() + RUN_S_MAX
    for _ in range(PER_RUN_MAX):
        if monotonic() > until or not processor.is_configured():
            break
        topup = recharges.claim_due(now=now)
        if topup is None:
            break
        with fault_isolation.apart(f"recharge of tenant {topup.tenant_id}"):
            known += _ask(topup, now)
    return known


def _ask(topup: TopUp, now: datetime) -> bool:
    is_known = True
    try:
        outcome = processor.charge_card(topup, may_send=recharges.may_send(topup), now=now)
    except processor.ProcessorAway as problem:
        outcome, is_known = f"not known yet: {problem}", False
        recharges.give_up(topup, now=now)
    logger.info("recharge of tenant %s: %s", topup.tenant_id, outcome)
    return is_known
