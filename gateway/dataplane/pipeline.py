"""The spine: one chat call, from the caller's bytes to settled money. Read this page first.

authenticate → parse → rank → plan → hold → attempts → settle → end. Each step is one file, and
nothing is decided elsewhere behind its back. Until something was shown to the client whatever
goes wrong is raised as a GatewayError; afterwards the answer ends with an error event.
"""

from collections.abc import Callable
from dataclasses import dataclass

from billing import registers
from billing.holding.holds import Placed, Refused
from billing.money import PICO_PER_NANO
from billing.outcomes import OK, STOPPED
from billing.prices.price_spans import lists_at
from gateway.clocks.stopwatch import Clock
from gateway.dataplane import (
    admission,
    auth,
    narrowing,
    rate_headers,
    refusal_log,
    relay,
    verdicts,
)
from gateway.dataplane.auth import Principal, UnknownKeys
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.inbound.client import Client
from gateway.dataplane.inbound.watchdog import ClientLeft, ClientStalled
from gateway.dataplane.limits import Limits
from gateway.dataplane.redis.pipe import RedisPipe
from gateway.dataplane.redis.stale_credit import StaleCredit
from gateway.dataplane.relay import Relay
from gateway.dataplane.settling.leases import Leases
from gateway.dataplane.settling.settler import Settler
from gateway.dataplane.snapshots.snapshot import Snapshots
from gateway.dataplane.surfaces.registry import Surface
from gateway.errors import GatewayError
from gateway.estimates.ratios import Ratios
from gateway.routing import ceilings, router
from gateway.routing.breaker import Breaker
from gateway.routing.router import Ranking
from providers.chat import ChatRequest, Receipt

# Each cap that refuses may be met by other offers or a shorter answer; a race for the rest of a
# budget comes to an end.
NARROWINGS_MAX = 8


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts that every request of this process shares."""

    pipe: RedisPipe
    snapshots: Snapshots
    unknown_keys: UnknownKeys
    settler: Settler
    leases: Leases
    relay: Relay
    breaker: Breaker
    ratios: Ratios
    limits: Limits
    clock: Clock
    stale_credit: StaleCredit
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
            for narrowings_left in range(NARROWINGS_MAX, -1, -1):
                exchange = self._plan(surface, client, principal, request, ranking, request_id)
                outcome = await self._place(exchange)
                if isinstance(outcome, Placed):
                    self._note_placed(exchange, outcome)
                    return exchange
                narrower = narrowing.narrowed(exchange, outcome) if narrowings_left else None
                if narrower is None:
                    await self.stale_credit.check(principal.tenant_id, outcome)
                    raise admission.refusal(outcome, principal, exchange.hold)
                ranking = narrower
            raise AssertionError("the last round returns or raises")
        except GatewayError as error:
            refusal_log.note(
                self.pipe,
                principal,
                error,
                request_id=request_id,
                model=model,
                at_ms=self.clock.now_ms(),
            )
            raise

    async def _place(self, exchange: Exchange) -> Placed | Refused:
        """The hold, and beside it what the caller is told of its minute."""
        rates, tenant = exchange.principal.rates, exchange.principal.tenant_id
        now_ms = exchange.started_ms
        asked = rate_headers.ask(self.pipe, tenant=tenant, rates=rates, now_ms=now_ms)
        outcome = await admission.place(
            exchange, pipe=self.pipe, snapshots=self.snapshots, settler=self.settler
        )
        exchange.client.rates = await rate_headers.told(
            asked,
            rates=rates,
            own=(1, exchange.hold.tokens) if isinstance(outcome, Placed) else (0, 0),
            now_ms=now_ms,
            dialect=exchange.request.dialect,
        )
        return outcome

    def _note_placed(self, exchange: Exchange, placed: Placed) -> None:
        """What the hold script told beside its yes: the session's cost, and who would have said
        no."""
        if placed.session_nano is not None:
            exchange.session_nano = placed.session_nano
            exchange.client.head.append(relay.session_header(placed.session_nano * PICO_PER_NANO))
        if placed.shadows:
            refusal_log.note_shadows(self.pipe, exchange, placed.shadows, at_ms=self.clock.now_ms())

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

    def _plan(
        self,
        surface: Surface,
        client: Client,
        principal: Principal,
        request: ChatRequest,
        ranking: Ranking,
        request_id: str,
    ) -> Exchange:
        """The candidates that may be tried, and what to hold for the dearest of them."""
        candidates = admission.plan(
            ranking,
            self.snapshots.current.offers_by_model,
            principal,
            attempts_max=self.limits.attempts_max,
        )
        now_ms = self.clock.now_ms()
        exchange = Exchange(
            request_id=request_id,
            started_ms=now_ms,
            deadline_ms=now_ms + int(self.limits.deadline_s * 1000),
            principal=principal,
            request=request,
            client=client,
            writer=surface.writer(request, request_id=request_id, created_s=now_ms // 1000),
            ranking=ranking,
            candidates=candidates,
            hold=admission.hold_of(candidates, request, principal),
            session=registers.session_of(principal.tenant_id, request.session_id)
            if request.session_id
            else "",
            ratios=self.ratios,
        )
        exchange.attempts.append(
            relay.new_attempt(exchange, candidates[0], number=1, clock=self.clock)
        )
        return exchange

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
        """The last bytes: what it cost is booked by now, and the client may know."""
        client, attempt = exchange.client, exchange.last
        if client.watchdog.client_left:
            return
        client.watchdog.grant(self.limits.write_stall_s)
        try:
            if attempt.outcome in (OK, STOPPED) and exchange.request.stream:
                if not client.started:
                    await client.start(200, relay.head_of(exchange))
                await client.end(exchange.writer.end(receipt))
            elif attempt.outcome == OK:
                await client.answer(200, *verdicts.whole(exchange, receipt))
            elif not client.started:
                raise verdicts.error_of(exchange, rest_ms=self._rest_ms(exchange))
            elif not client.cut_off:
                await client.end(verdicts.broken(exchange, receipt))
        except ClientLeft:
            return
        except ClientStalled:
            client.cut()

    def _rest_ms(self, exchange: Exchange) -> int:
        """How long the offer that failed last will be left alone."""
        access, caller = exchange.last.candidate.offer.access, exchange.principal.tenant_id
        return self.breaker.retry_after_ms(access, caller, self.clock.now_ms())
