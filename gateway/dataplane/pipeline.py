"""The spine: one chat call, from the caller's bytes to settled money. Read this page first.

authenticate → parse → rank → plan → hold → attempts → settle → end. Each step is one file, and
nothing is decided elsewhere behind its back. Until something was shown to the client whatever
goes wrong is raised as a GatewayError; afterwards the answer ends with an error event.
"""

from collections.abc import Callable
from dataclasses import dataclass

from billing.prices.price_spans import lists_at
from gateway.clocks.stopwatch import Clock
from gateway.dataplane import auth, refusal_log, verdicts
from gateway.dataplane.admission import Admission
from gateway.dataplane.auth import Principal, UnknownKeys
from gateway.dataplane.exchange import Call, Exchange
from gateway.dataplane.inbound.client import Client
from gateway.dataplane.inbound.watchdog import ClientLeft
from gateway.dataplane.limits import Limits
from gateway.dataplane.redis.pipe import RedisPipe
from gateway.dataplane.relay import Relay
from gateway.dataplane.settling.leases import Leases
from gateway.dataplane.settling.settler import Settler
from gateway.dataplane.snapshots.snapshot import Snapshots
from gateway.dataplane.surfaces.registry import Surface
from gateway.errors import GatewayError
from gateway.routing import ceilings, router
from gateway.routing.breaker import Breaker
from gateway.routing.router import Ranking
from providers.chat import ChatRequest, Receipt


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts that every request of this process shares."""

    pipe: RedisPipe
    snapshots: Snapshots
    unknown_keys: UnknownKeys
    admission: Admission
    settler: Settler
    leases: Leases
    relay: Relay
    breaker: Breaker
    limits: Limits
    clock: Clock
    check: Callable[[], None]  # Unavailable while this process should admit nobody

    async def serve(self, surface: Surface, client: Client, *, request_id: str) -> None:
        """Answer one call, and book it."""
        principal = await self.authenticate(client)
        exchange = await self._admit(surface, client, principal, request_id)
        receipt = await self._carry_out(exchange)
        await self._end(exchange, receipt)

    async def authenticate(self, client: Client) -> Principal:
        """Whose call it is: from the snapshot, else from Postgres."""
        self.check()
        key_hash = auth.key_hash_of(client.headers, repeated=client.repeated)
        principal = self.snapshots.current.keys.get(key_hash)
        if principal is None:
            principal = await self.unknown_keys.find(key_hash)
        principal = auth.check_principal(principal, now_ms=self.clock.now_ms())
        client.tenant = principal.tenant_id
        return principal

    async def _admit(
        self, surface: Surface, client: Client, principal: Principal, request_id: str
    ) -> Exchange:
        """Parse, rank, plan and hold; who is turned away here was charged nothing."""
        model = ""
        try:
            request = surface.parse(await client.body(), client.headers)
            model = request.model
            request.cache_salt = principal.cache_salt
            ranking = self.rank(request, principal)
            call = Call(request_id, principal, surface, request, client)
            return await self.admission.admit(call, ranking)
        except GatewayError as error:
            now_ms = self.clock.now_ms()
            refusal_log.note(
                self.pipe, principal, error, request_id=request_id, model=model, at_ms=now_ms
            )
            raise

    def rank(self, request: ChatRequest, principal: Principal) -> Ranking:
        """Who may serve, in which order, and why not the others. Pure."""
        snapshot, now_ms = self.snapshots.current, self.clock.now_ms()
        ranking = router.rank(
            request,
            offers_by_model=snapshot.offers_by_model,
            policy=principal.policy,
            limits=router.Limits(
                caller=principal.tenant_id,
                output_cap=principal.max_output_tokens,
                models=principal.models_allowed,
                price_lists=lists_at(principal.price_lists, now_ms),
            ),
            speeds=snapshot.speeds,
            breaker=self.breaker,
            now_ms=now_ms,
        )
        if request.max_cost_pico is None:
            return ranking
        return ceilings.within(
            ranking, request, ceiling_pico=request.max_cost_pico, cut_by=ceilings.MAX_COST
        )

    async def _carry_out(self, exchange: Exchange) -> Receipt:
        """Every attempt, then the settle: it runs whatever became of them, and of the client."""
        if exchange.client.watchdog.client_left:
            await self.settler.void(exchange)
            raise ClientLeft
        self.leases.add(exchange)
        try:
            await self.relay.run(exchange)
        finally:
            self.leases.remove(exchange)
            receipt = await self.settler.settle(exchange)
        return receipt

    async def _end(self, exchange: Exchange, receipt: Receipt) -> None:
        await verdicts.tell(
            exchange,
            receipt,
            breaker=self.breaker,
            now_ms=self.clock.now_ms(),
            stall_s=self.limits.write_stall_s,
        )
