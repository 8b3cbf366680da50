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
    legs: list[Leg] = []
    for entry, assessed, _ in items:
        legs += _legs(entry, assessed)
    first = items[0][0]
    return Draft(
        code=Code.USAGE,
        legs=legs,
        idempotency_key=f"usage:{first.request_id}:{first.attempt}",
        tenant_id=tenant,
        memo=f"{len(items)} attempts",
        transfer_id=transfer_id,
    )


def _legs(entry: StreamEntry, assessed: Assessed) -> list[Leg]:
    event = entry.event
    payable = AccountKey(Kind.PROVIDER_PAYABLE, supplier=event.supplier[:80])
    cost = Kind.PROVIDER_WASTE if assessed.wasted else Kind.COST_OF_SALES
    legs = _pair(AccountKey(Kind.TENANT_CREDIT, event.tenant), REVENUE, assessed.tenant_pico)
    legs += _pair(AccountKey(cost, supplier=event.supplier[:80]), payable, assessed.supplier_pico)
    if assessed.overage_pico:
        review = AccountKey(Kind.OVERAGE_REVIEW, event.tenant)
        legs += _pair(review, REVENUE, assessed.overage_pico)
    if assessed.exposure_pico > 0:
        exposure = AccountKey(Kind.SUPPLIER_EXPOSURE, supplier=event.supplier[:80])
        legs += _pair(exposure, payable, assessed.exposure_pico)
    return legs


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
