"""Whether Redis has heard of a tenant's credit: no 402 may come of a figure that got lost.

Asked only where a tenant is turned away for its credit or its status. PostgreSQL is asked at most
once a second for each of them; while it is away what Redis says stands.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from billing import registers
from billing.holding.holds import Refused
from gateway.dataplane.redis.pipe import NO_ANSWER, RedisPipe
from gateway.errors import Unavailable

KNOWN_FOR_S: Final = 1.0
TENANTS_MAX: Final = 10_000
BY_TENANT: Final = frozenset({"over_budget", "tenant_suspended"})
CREDIT: Final = "credit"

# The version of a tenant's credit in PostgreSQL; None where that does not answer.
Lookup = Callable[[int], Awaitable[int | None]]


class StaleCredit:
    """`check` raises Unavailable in place of a refusal that rests on old figures."""

    def __init__(self, lookup: Lookup, *, pipe: RedisPipe, monotonic: Callable[[], float]) -> None:
        self._lookup = lookup
        self._pipe = pipe
        self._monotonic = monotonic
        self._known: OrderedDict[int, tuple[float, int]] = OrderedDict()
        self._asking: dict[int, asyncio.Future[int | None]] = {}

    async def check(self, tenant: int, refused: Refused) -> None:
        if refused.code not in BY_TENANT or refused.window != CREDIT:
            return
        due = await self._due(tenant)
        key = registers.tenant_key(registers.shard_tag(tenant), tenant)
        try:
            known = int(await self._pipe.command("HGET", key, "version") or 0)
        except NO_ANSWER:
            known = due or 0
        if due is not None and known < due:
            raise Unavailable(
                "The credit of this tenant has changed, and the register of holds has not heard "
                "of it yet. Try again shortly.",
                code="credit_untold",
            )

    async def _due(self, tenant: int) -> int | None:
        now = self._monotonic()
        asked_at, version = self._known.get(tenant, (0.0, 0))
        if tenant in self._known and now - asked_at < KNOWN_FOR_S:
            return version
        # A crowd that is turned away asks once: its look-ups would keep those of keys waiting.
        asking = self._asking.get(tenant)
        if asking is None:
            asking = self._asking[tenant] = asyncio.ensure_future(self._ask(tenant, now))
        return await asyncio.shield(asking)

    async def _ask(self, tenant: int, now: float) -> int | None:
        try:
            found = await self._lookup(tenant)
        finally:
            del self._asking[tenant]
        if found is not None:
            self._known[tenant] = (now, found)
            self._known.move_to_end(tenant)
            if len(self._known) > TENANTS_MAX:
                self._known.popitem(last=False)
        return found
