"""Which accounts a usage event moves. Pure; docs/money.md has the table with worked numbers.

One transfer per tenant and batch carries all its events. What an expiry had booked as exposure is
taken back by a correction of that expiry's own transfer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from billing.books.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.drain.assessment import Assessed, Prior
from billing.holding.usage_stream import StreamEntry

Posted = tuple[StreamEntry, Assessed, Prior]

REVENUE = AccountKey(Kind.REVENUE)


@dataclass(slots=True)
class _Sum:
    """What one tenant's events of a batch come to, and what suppliers bill, or may bill, for
    them, by why and whom."""

    first: StreamEntry
    attempts: int = 0
    paid_pico: int = 0
    overage_pico: int = 0
    owed_pico: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, entry: StreamEntry, assessed: Assessed) -> None:
        supplier = entry.event.supplier[:80]
        self.attempts += 1
        self.paid_pico += assessed.tenant_pico
        self.overage_pico += assessed.overage_pico
        why = Kind.PROVIDER_WASTE if assessed.wasted else Kind.COST_OF_SALES
        self.owed_pico[why, supplier] += assessed.supplier_pico
        if assessed.exposure_pico > 0:
            self.owed_pico[Kind.SUPPLIER_EXPOSURE, supplier] += assessed.exposure_pico


def drafts(posted: Iterable[Posted], transfer_ids: Mapping[int, int]) -> list[Draft]:
    """The transfers of newly drained events."""
    sums: dict[int, _Sum] = {}
    corrections = []
    for entry, assessed, prior in posted:
        tenant = entry.event.tenant
        if tenant not in sums:
            sums[tenant] = _Sum(entry)
        sums[tenant].add(entry, assessed)
        if assessed.exposure_pico < 0:
            corrections.append(_correction(entry, assessed, prior))
    made = [_usage(tenant, total, transfer_ids[tenant]) for tenant, total in sums.items()]
    return made + corrections


def _usage(tenant: int, total: _Sum, transfer_id: int) -> Draft:
    """Summed before it is posted: a batch has few accounts and many events."""
    legs = _pair(AccountKey(Kind.TENANT_CREDIT, tenant), REVENUE, total.paid_pico)
    if total.overage_pico:
        legs += _pair(AccountKey(Kind.OVERAGE_REVIEW, tenant), REVENUE, total.overage_pico)
    for (kind, supplier), amount_pico in total.owed_pico.items():
        payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier=supplier)
        legs += _pair(AccountKey(kind, supplier=supplier), payable, amount_pico)
    return Draft(
        code=Code.USAGE,
        legs=legs,
        idempotency_key=f"usage:{total.first.event.request_id}:{total.first.attempt}",
        tenant_id=tenant,
        memo=f"{total.attempts} attempts",
        transfer_id=transfer_id,
    )


def _correction(entry: StreamEntry, assessed: Assessed, prior: Prior) -> Draft:
    supplier = entry.event.supplier[:80]
    return Draft(
        code=Code.CORRECTION,
        legs=_pair(
            AccountKey(Kind.SUPPLIER_EXPOSURE, supplier=supplier),
            AccountKey(Kind.PROVIDER_PAYABLE, supplier=supplier),
            assessed.exposure_pico,
        ),
        idempotency_key=f"exposure:{entry.event.request_id}:{entry.attempt}",
        tenant_id=entry.event.tenant,
        memo="settled after its expiry",
        corrects_id=prior.transfer_id,
    )


def _pair(debit: AccountKey, credit: AccountKey, amount_pico: int) -> list[Leg]:
    return [Leg(debit, amount_pico), Leg(credit, -amount_pico)]
