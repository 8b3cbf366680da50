"""The snapshot signal under the name that gateway code uses; the counter itself is in providers."""

from providers.snapshot_signal import VERSION_KEY, bump, connection

__all__ = ["VERSION_KEY", "bump", "connection"]
