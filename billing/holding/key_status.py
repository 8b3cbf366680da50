"""Keys that must never hold again: written to Redis at once, and kept for a rebuild."""

import redis

from billing.holding import holds
from billing.models import RevokedKey


def revoke(client: redis.Redis, *, tenant_id: int, api_key_id: int) -> None:
    """Revoke a key in every data plane process at its next call; doing it twice changes nothing."""
    RevokedKey.objects.get_or_create(api_key_id=api_key_id, defaults={"tenant_id": tenant_id})
    holds.set_key_status(client, tenant_id, api_key_id, holds.REVOKED)
