"""Which spend registers an event counts in, by the quotas that exist."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from billing import registers
from billing.models import Quota
from billing.usage_stream import StreamEntry

Scope = tuple[int, str, int]  # tenant, kind, id


@dataclass(frozen=True, slots=True)
class QuotaRegisters:
    tag: str
    windows: dict[Scope, list[str]]

    @classmethod
    def of(cls, tenants: Iterable[int], shard: int) -> "QuotaRegisters":
        windows: dict[Scope, list[str]] = defaultdict(list)
        for quota in Quota.objects.filter(tenant_id__in=list(tenants)):
            windows[quota.tenant_id, quota.scope_kind, quota.scope_id].append(quota.window)
        return cls(registers.tag_of_shard(shard), dict(windows))

    def missing(self, entry: StreamEntry) -> tuple[str, ...]:
        """Registers the event belongs in that its hold did not name: a cap set after it."""
        if not self.windows:
            return ()
        event = entry.event
        scopes = (("tenant", event.tenant), ("team", event.team), ("key", event.key))
        at_ms = registers.request_ms(event.request_id)
        found = []
        for kind, scope_id in scopes:
            if scope_id is None:
                continue
            for window in self.windows.get((event.tenant, kind, scope_id), ()):
                bucket, _ = registers.bucket_of(window, at_ms)
                key = registers.spend_key(
                    self.tag, event.tenant, kind=kind, scope=str(scope_id), bucket=bucket
                )
                if key not in entry.keys:
                    found.append(key)
        return tuple(found)
