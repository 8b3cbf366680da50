"""Which accounts a usage event moves. Pure; docs/money.md has the table with worked numbers.

One transfer per tenant and batch carries all its events. What an expiry had booked as exposure is
taken back by a correction of that expiry's own transfer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from billing.assessment import Assessed, Prior
from billing.ledger import AccountKey, Code, Draft, Kind, Leg
from billing.usage_stream import StreamEntry

Posted = tuple[StreamEntry, Assessed, Prior]

REVENUE = AccountKey(Kind.REVENUE)


def drafts(posted: Iterable[Posted], transfer_ids: Mapping[int, int]) -> list[Draft]:
    """The transfers of newly drained events."""
    by_tenant: dict[int, list[Posted]] = defaultdict(list)
    for item in posted:
        by_tenant[item[0].event.tenant].append(item)
    made = [_usage(tenant, items, transfer_ids[tenant]) for tenant, items in by_tenant.items()]
    for items in by_tenant.values():
        made += [_correction(*item) for item in items if item[1].exposure_pico < 0]
    return made


def _usage(tenant: int, items: list[Posted], transfer_id: int) -> Draft:
    """Summed before it is posted: a batch has few accounts and many events."""
    paid_pico = sum(assessed.tenant_pico for _, assessed, _ in items)
    legs = _pair(AccountKey(Kind.TENANT_CREDIT, tenant), REVENUE, paid_pico)
    overage_pico = sum(assessed.overage_pico for _, assessed, _ in items)
    if overage_pico:
        legs += _pair(AccountKey(Kind.OVERAGE_REVIEW, tenant), REVENUE, overage_pico)
    for (kind, supplier), amount_pico in _owed(items).items():
        payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier=supplier)
        legs += _pair(AccountKey(kind, supplier=supplier), payable, amount_pico)
    first = items[0][0]
    return Draft(
        code=Code.USAGE,
        legs=legs,
        idempotency_key=f"usage:{first.request_id}:{first.attempt}",
        tenant_id=tenant,
        memo=f"{len(items)} attempts",
        transfer_id=transfer_id,
    )


def _owed(items: list[Posted]) -> dict[tuple[str, str], int]:
    """What suppliers bill, or may bill, by why and whom."""
    owed: dict[tuple[str, str], int] = defaultdict(int)
    for entry, assessed, _ in items:
        supplier = entry.event.supplier[:80]
        why = Kind.PROVIDER_WASTE if assessed.wasted else Kind.COST_OF_SALES
        owed[why, supplier] += assessed.supplier_pico
        if assessed.exposure_pico > 0:
            owed[Kind.SUPPLIER_EXPOSURE, supplier] += assessed.exposure_pico
    return owed


def _correction(entry: StreamEntry, assessed: Assessed, prior: Prior) -> Draft:
    supplier = entry.event.supplier[:80]
    return Draft(
        code=Code.CORRECTION,
        legs=_pair(
            AccountKey(Kind.SUPPLIER_EXPOSURE, supplier=supplier),
            AccountKey(Kind.PROVIDER_PAYABLE, supplier=supplier),
            assessed.exposure_pico,
        ),
        idempotency_key=f"exposure:{entry.request_id}:{entry.attempt}",
        tenant_id=entry.event.tenant,
        memo="settled after its expiry",
        corrects_id=prior.transfer_id,
    )


def _pair(debit: AccountKey, credit: AccountKey, amount_pico: int) -> list[Leg]:
    return [Leg(debit, amount_pico), Leg(credit, -amount_pico)]
