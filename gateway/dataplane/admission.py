"""From a ranking to a hold: the plan of one request, and the one Redis call that admits it.

The hold is the dearest that any candidate in the plan can cost or, where the tenant has an
overdraft, what such calls cost so far. It is placed over every scope at once or refused with the
scope's name; a refusal has changed nothing. The call is never
interrupted: it is bounded by Redis' own time limit, and an unheard answer is voided later.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from hiredis import ReplyError

from billing import rating, registers
from billing.errors import Cold, HoldNotOpen
from billing.holding import holds
from billing.holding.holds import HoldRequest, Placed, Refused, SpendScope
from billing.money import PICO_PER_NANO, REGISTER_NANO_MAX, nano_ceil, nano_floor
from billing.registers import shard_of
from gateway.clocks.stopwatch import Clock
from gateway.dataplane import narrowing, rate_headers, refusal_log, refused_holds, unserved
from gateway.dataplane.auth import Principal
from gateway.dataplane.exchange import Call, Exchange, Hold
from gateway.dataplane.limits import Limits
from gateway.dataplane.redis.pipe import RedisAway, RedisPipe
from gateway.dataplane.redis.stale_credit import StaleCredit
from gateway.dataplane.relay import new_attempt
from gateway.dataplane.settling import charges
from gateway.dataplane.settling.charges import Charge
from gateway.dataplane.settling.settler import Settler
from gateway.dataplane.snapshots.snapshot import Snapshots
from gateway.dataplane.verdicts import session_header
from gateway.errors import Unavailable
from gateway.estimates.ratios import Ratios
from gateway.routing import names
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest

THOUSAND: Final = 1000
# Each cap that refuses may be met by other offers or a shorter answer; a race for the rest of a
# budget comes to an end.
NARROWINGS_MAX: Final = 8


def plan(
    ranking: Ranking,
    snapshot_models: names.OffersByModel,
    principal: Principal,
    *,
    attempts_max: int,
) -> tuple[Candidate, ...]:
    """The candidates that may be tried, or why there are none."""
    if ranking.candidates:
        return ranking.candidates[:attempts_max]
    raise unserved.error_of(
        ranking,
        snapshot_models,
        policy=principal.policy,
        models_allowed=principal.models_allowed,
    )


def hold_of(candidates: tuple[Candidate, ...], request: ChatRequest, principal: Principal) -> Hold:
    """What to set aside for the dearest of these candidates, and in which caps."""
    ceiling_nano = nano_ceil(max(candidate.worst_pico for candidate in candidates))
    nano = ceiling_nano
    if principal.overdraft_nano:
        nano = nano_ceil(max(expected_hold(each, request, principal) for each in candidates))
    spend, named = _caps(candidates, request, principal)
    largest = max(candidates, key=lambda candidate: candidate.tokens_bound)
    return Hold(
        nano=nano,
        ceiling_nano=ceiling_nano,
        overdraft_nano=principal.overdraft_nano,
        input_tokens=largest.input_bound,
        output_tokens=largest.output_bound,
        spend=spend,
        named=named,
    )


def expected_hold(candidate: Candidate, request: ChatRequest, principal: Principal) -> int:
    """The p99 of what such calls used so far, at this candidate's prices; the most that it can
    cost where too few calls are known, or the past says nothing of such a request."""
    use = principal.call_use.get(candidate.offer.model)
    if use is None or request.n > 1 or not request.all_text:
        return candidate.worst_pico
    return rating.worst_case(
        candidate.prices,
        input_bound=-(-candidate.input_bound * use.input_p99 // THOUSAND),
        output_bound=min(candidate.output_bound, use.output_p99),
    )


def _caps(
    candidates: tuple[Candidate, ...], request: ChatRequest, principal: Principal
) -> tuple[tuple[SpendScope, ...], tuple[tuple[int, str, str], ...]]:
    """The caps that a request counts in, its session's last; and which of them are a model's or
    a provider's alone."""
    spend: tuple[SpendScope, ...] = principal.spend
    named: list[tuple[int, str, str]] = []
    # Most keys have neither kind, and each request passes here.
    if principal.spend_by_model or principal.spend_by_provider:
        for kind, name, cap in _named_caps(candidates, principal):
            spend = (*spend, cap)
            named.append((len(spend), kind, name))
    if request.session_id:
        spend = (*spend, _session_scope(request, principal))
    return spend, tuple(named)


def _named_caps(
    candidates: tuple[Candidate, ...], principal: Principal
) -> Iterator[tuple[str, str, SpendScope]]:
    for name in dict.fromkeys(each.offer.model for each in candidates):
        for cap in principal.spend_by_model.get(name, ()):
            yield "model", name, cap
    for name in dict.fromkeys(each.offer.provider for each in candidates):
        for cap in principal.spend_by_provider.get(name, ()):
            yield "provider", name, cap


def _session_scope(request: ChatRequest, principal: Principal) -> SpendScope:
    """The caller's own ceiling, but never above what the tenant allows a session."""
    limit_nano = REGISTER_NANO_MAX
    if request.session_max_pico is not None:
        limit_nano = nano_floor(request.session_max_pico)
    session = registers.session_of(principal.tenant_id, request.session_id)
    allowed = principal.session_cap
    if allowed is None:
        return SpendScope(registers.SESSION, session, registers.SESSION, limit_nano)
    return replace(
        allowed,
        id=session,
        limit_nano=min(limit_nano, allowed.limit_nano),
        raised_nano=min(limit_nano, allowed.raised_nano),
    )


@dataclass(frozen=True, slots=True)
class Admission:
    pipe: RedisPipe
    snapshots: Snapshots
    settler: Settler
    ratios: Ratios
    limits: Limits
    clock: Clock
    stale_credit: StaleCredit

    async def admit(self, call: Call, ranking: Ranking) -> Exchange:
        """Plan and place the hold; where a cap refuses it, again by what that cap leaves."""
        for narrowings_left in range(NARROWINGS_MAX, -1, -1):
            exchange = self._plan(call, ranking)
            outcome = await self._place_and_tell(exchange)
            if isinstance(outcome, Placed):
                self._note_placed(exchange, outcome)
                return exchange
            narrower = narrowing.narrowed(exchange, outcome) if narrowings_left else None
            if narrower is None:
                await self.stale_credit.check(call.principal.tenant_id, outcome)
                raise refused_holds.error_of(outcome, call.principal, exchange.hold)
            ranking = narrower
        raise AssertionError("the last round returns or raises")

    def _plan(self, call: Call, ranking: Ranking) -> Exchange:
        """The candidates that may be tried, and what to hold for the dearest of them."""
        principal, request, now_ms = call.principal, call.request, self.clock.now_ms()
        candidates = plan(
            ranking,
            self.snapshots.current.offers_by_model,
            principal,
            attempts_max=self.limits.attempts_max,
        )
        exchange = Exchange(
            request_id=call.request_id,
            started_ms=now_ms,
            deadline_ms=now_ms + int(self.limits.deadline_s * 1000),
            principal=principal,
            request=request,
            client=call.client,
            writer=call.surface.writer(
                request, request_id=call.request_id, created_s=now_ms // 1000
            ),
            ranking=ranking,
            candidates=candidates,
            hold=hold_of(candidates, request, principal),
            session=registers.session_of(principal.tenant_id, request.session_id)
            if request.session_id
            else "",
            ratios=self.ratios,
        )
        exchange.attempts.append(new_attempt(exchange, candidates[0], number=1, clock=self.clock))
        return exchange

    async def _place_and_tell(self, exchange: Exchange) -> Placed | Refused:
        """The hold, and beside it what the caller is told of its minute."""
        rates, tenant = exchange.principal.rates, exchange.principal.tenant_id
        now_ms = exchange.started_ms
        asked = rate_headers.ask(self.pipe, tenant=tenant, rates=rates, now_ms=now_ms)
        outcome = await self.place(exchange)
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
            exchange.client.head.append(session_header(placed.session_nano * PICO_PER_NANO))
        if placed.shadows:
            refusal_log.note_shadows(self.pipe, exchange, placed.shadows, at_ms=self.clock.now_ms())

    async def place(self, exchange: Exchange) -> Placed | Refused:
        """Place the hold, or say which scope refuses it; raises where neither can be known."""
        request = _hold_request(exchange)
        try:
            outcome = await self._place_once(request)
            if outcome is None:
                await self.snapshots.reload()
                outcome = await self._place_once(request)
        except RedisAway as away:
            if away.sent:
                await self.settler.void(exchange)
            raise Unavailable(
                "Requests cannot be admitted: the register of holds does not answer. "
                "Try again shortly.",
                code="registers_unavailable",
            ) from away
        except HoldNotOpen as gone:
            raise Unavailable("The hold was lost on its way. Try again.") from gone
        except ReplyError as problem:
            raise Unavailable("Admission failed. Try again shortly.") from problem
        if outcome is None:
            raise Unavailable(
                "The books of this tenant are being rebuilt. Try again shortly.",
                code="registers_cold",
            )
        return outcome

    async def _place_once(self, request: HoldRequest) -> Placed | Refused | None:
        """None where the shard is cold: its epoch is not the one of our snapshot."""
        epoch = self.snapshots.current.epochs.get(shard_of(request.tenant))
        if epoch is None:
            return None
        reply = await self.pipe.run(holds.place_call(request, epoch=epoch), repeatable=True)
        try:
            return holds.read_place(reply)
        except Cold:
            return None


def _hold_request(exchange: Exchange) -> HoldRequest:
    principal = exchange.principal
    unknown = charges.event_of(
        exchange, exchange.last, Charge(), now_ms=exchange.started_ms, template=True
    )
    return HoldRequest(
        request_id=exchange.request_id,
        tenant=principal.tenant_id,
        key=principal.key_id,
        hold_nano=exchange.hold.nano,
        tokens=exchange.hold.tokens,
        now_ms=exchange.started_ms,
        deadline_ms=exchange.deadline_ms,
        spend=exchange.hold.spend,
        rates=principal.rates,
        unknown_event=unknown,
        ceiling_nano=exchange.hold.ceiling_nano,
        overdraft_nano=exchange.hold.overdraft_nano,
    )
