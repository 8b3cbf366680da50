"""The snapshot signal under the name that gateway code uses; the counter itself is in providers."""

from billing.redis_connection import connection
from providers.snapshot_signal import VERSION_KEY, bump

__all__ = ["VERSION_KEY", "bump", "connection"]
