"""What a tenant's requests set aside: the most they can cost, or what such calls cost so far.

In strict mode, the default, nothing can pass a limit. In expected mode a hold is the p99 of the
key's own past, and what a request costs above it is charged as long as no limit is passed by more
than the overdraft: spent ≤ limit + overdraft, always.
"""

from datetime import datetime
from typing import Final

from django.db import transaction

from billing import audit
from billing.errors import LimitRefused
from billing.kinds import HoldMode
from billing.models import Tenant
from billing.money import PICO_PER_USD

OVERDRAFT_PICO_MAX: Final = 100_000 * PICO_PER_USD
# Fewer calls tell nothing of their p99: then the hold is the most they can cost.
CALLS_MIN: Final = 100


def set_hold_mode(
    *, tenant: Tenant, mode: str, overdraft_pico: int, actor: str, now: datetime, reason: str = ""
) -> None:
    """Change how much requests set aside from the next one on; LimitRefused changes nothing."""
    if mode not in HoldMode.values():
        raise LimitRefused(f"no such mode of holds: {mode}")
    if type(overdraft_pico) is not int or not 0 <= overdraft_pico <= OVERDRAFT_PICO_MAX:
        raise LimitRefused(f"not an overdraft: {overdraft_pico}")
    if mode == HoldMode.EXPECTED and not overdraft_pico:
        raise LimitRefused("expected holds need an overdraft: how far limits may be passed")
    with transaction.atomic():
        locked = Tenant.objects.select_for_update().get(pk=tenant.pk)
        before = _stated(locked)
        locked.hold_mode, locked.overdraft_pico = mode, overdraft_pico
        locked.save(update_fields=["hold_mode", "overdraft_pico"])
        audit.record(
            actor=actor,
            action="tenant.hold_mode",
            subject=str(tenant),
            tenant=locked,
            before=before,
            after=_stated(locked),
            reason=reason,
            now=now,
        )


def _stated(tenant: Tenant) -> dict[str, object]:
    return {"hold_mode": str(tenant.hold_mode), "overdraft_pico": int(tenant.overdraft_pico)}


def overdraft_of(tenant: Tenant) -> int:
    """By how many pico-dollars spending may pass each of the tenant's limits."""
    if tenant.hold_mode == HoldMode.STRICT:
        return 0
    return int(tenant.overdraft_pico)
