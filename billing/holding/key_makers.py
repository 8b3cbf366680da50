"""Keys that keys made: what binds the maker binds what it made.

What a made key uses counts at its maker's caps and rates too, and at its maker's maker's, so that
a key that is at its cap gets no further by making another. Ids of keys are opaque here.
"""

from collections import defaultdict
from collections.abc import Collection
from typing import Final

from billing.errors import LimitRefused
from billing.models import MadeKey, Tenant

# A hold names every cap of the line; longer ones are refused.
MAKERS_MAX: Final = 8


def record(*, tenant: Tenant, api_key_id: int, maker_id: int) -> None:
    """Let a new key count at its maker and at everybody in its maker's line."""
    line = (maker_id, *makers(tenant.pk, maker_id))
    if len(line) > MAKERS_MAX:
        raise LimitRefused(f"a key that was made by keys {MAKERS_MAX} deep makes no more")
    MadeKey.objects.bulk_create(
        MadeKey(tenant=tenant, api_key_id=api_key_id, maker_id=each) for each in line
    )


def makers(tenant_id: int, api_key_id: int) -> tuple[int, ...]:
    """The keys at which this one counts too."""
    found = MadeKey.objects.filter(tenant_id=tenant_id, api_key_id=api_key_id)
    return tuple(found.order_by("pk").values_list("maker_id", flat=True))


def lines(tenants: Collection[int]) -> dict[tuple[int, int], tuple[int, ...]]:
    """The makers of every made key of these tenants, by tenant and key."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    rows = MadeKey.objects.filter(tenant_id__in=tenants).order_by("pk")
    for tenant_id, api_key_id, maker_id in rows.values_list("tenant_id", "api_key_id", "maker_id"):
        found[tenant_id, api_key_id].append(maker_id)
    return {key: tuple(line) for key, line in found.items()}
