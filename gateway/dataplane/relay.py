"""The attempts of one request: open an answer, pump it, say what came of it, try the next.

Another candidate may take over until the client was shown something, after it never. What went
wrong is written on the attempt, not raised: only a cancellation from outside passes through.
"""

import asyncio
import logging
from dataclasses import dataclass

from billing.outcomes import (
    CLIENT_CANCELLED,
    CLIENT_STALLED,
    DEADLINE,
    GATEWAY_ERROR,
    OK,
    REFUSED,
    STOPPED,
    UPSTREAM_CUT,
    UPSTREAM_ERROR,
)
from gateway.clocks.pulse import Pulse
from gateway.clocks.stopwatch import Clock, Stopwatch
from gateway.dataplane.exchange import Attempt, Exchange
from gateway.dataplane.inbound.watchdog import (
    ClientLeft,
    ClientStalled,
    DeadlinePassed,
    Interrupted,
    Silent,
)
from gateway.dataplane.limits import Limits
from gateway.dataplane.pump import Pump, drain, error_body
from gateway.dataplane.settling.lost_counts import Afterwards
from gateway.dataplane.settling.recounting import Recounting
from gateway.errors import Unavailable
from gateway.routing.breaker import Breaker
from providers.chat import Candidate
from providers.errors import (
    BadRequest,
    ConnectFailed,
    OwnTrouble,
    ProtocolError,
    ProviderError,
    StreamBroken,
    Timeout,
)
from providers.outbound.upstream import Answer, Upstream
from providers.wires.error_answers import failure
from providers.wires.registry import wire_for
from providers.wires.worker_counts import call_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Relay:
    """What an attempt needs beside the exchange."""

    upstream: Upstream
    breaker: Breaker
    limits: Limits
    clock: Clock
    pulse: Pulse
    afterwards: Afterwards
    recounting: Recounting

    async def run(self, exchange: Exchange) -> None:
        """Try the candidates in order until one has shown something or succeeded; what our own
        worker did of it is asked for where it was not said, or can count what another did not."""
        await self._try_all(exchange)
        await self.afterwards.ask(exchange)
        await self.recounting.ask(exchange)

    async def _try_all(self, exchange: Exchange) -> None:
        for number, candidate in enumerate(exchange.candidates, start=1):
            if number > 1:
                exchange.attempts.append(
                    new_attempt(exchange, candidate, number=number, clock=self.clock)
                )
            attempt = exchange.last
            await self._try(exchange, attempt)
            if not _may_fall_back(exchange, attempt):
                return

    async def _try(self, exchange: Exchange, attempt: Attempt) -> None:
        """One attempt, from the first byte sent to an outcome."""
        answer: Answer | None = None
        offer = attempt.candidate.offer
        self.breaker.begin(offer.access, exchange.principal.tenant_id, self.clock.now_ms())
        attempt.stopwatch = Stopwatch(self.clock)
        lost_s = self.pulse.lost_s()
        try:
            answer = await self._open(exchange, attempt)
            await Pump(exchange, attempt, answer, self.limits).run()
            self._succeed(exchange, attempt)
        except ProviderError as problem:
            if problem.detail:
                # Callers are told neither host nor path; the request id leads them here.
                logger.warning("%s at %s: %s", exchange.request_id, offer.sku, problem)
            _fail(attempt, problem)
        except Silent:
            _fail(attempt, Timeout("it sent nothing for too long"))
        except DeadlinePassed:
            attempt.outcome = DEADLINE
            attempt.failure = Timeout("the request used up all of its time")
            if exchange.client.watchdog.ended:
                attempt.failure = OwnTrouble("the gateway was stopped", charged=True)
        except (ClientLeft, ClientStalled) as reason:
            await self._let_go(exchange, attempt, answer, reason)
        except Unavailable:
            attempt.outcome = GATEWAY_ERROR
            raise
        except asyncio.CancelledError:
            attempt.outcome = DEADLINE
            attempt.failure = OwnTrouble("the gateway was stopped", charged=True)
            raise
        finally:
            if answer is not None:
                answer.close()
            _own_up(attempt, still_s=self.pulse.lost_s() - lost_s)
            self._report(exchange, attempt)

    def _succeed(self, exchange: Exchange, attempt: Attempt) -> None:
        """A whole answer is shown at once, or not at all where the client left meanwhile."""
        if attempt.outcome == STOPPED:
            return
        attempt.outcome = OK
        if exchange.request.stream:
            return
        if exchange.client.watchdog.client_left:
            attempt.outcome, attempt.cancel_applied = CLIENT_CANCELLED, "drain"
        else:
            attempt.shown = attempt.read

    async def _open(self, exchange: Exchange, attempt: Attempt) -> Answer:
        """Send the request; an answer that is not 200 is raised as what it means."""
        request, candidate = exchange.request, attempt.candidate
        offer = candidate.offer
        request.call_id = call_id(exchange.request_id, attempt.number)
        call = wire_for(offer.wire).build(
            request, offer, max_output_tokens=candidate.max_output_tokens
        )
        limits = self.limits
        # A whole answer sends its first byte when it is complete.
        limit_s = limits.first_byte_timeout_s if request.stream else limits.deadline_s
        answer = await exchange.client.watchdog.wait(
            self.upstream.open(call, approved=offer.in_house),
            limit_s=limit_s,
            reason=Silent,
            client_matters=offer.cancel_stops_billing,
        )
        attempt.status = answer.status
        if answer.status == 200:
            return answer
        try:
            limit_s = limits.error_body_timeout_s
            body = await error_body(exchange, answer, limit_s=limit_s, clock=self.clock)
        finally:
            answer.close()
        if 300 <= answer.status < 400:
            raise ProtocolError(f"a redirect was not followed ({answer.status})")
        raise failure(answer.status, answer.headers(), body, offer.wire)

    async def _let_go(
        self, exchange: Exchange, attempt: Attempt, answer: Answer | None, reason: Interrupted
    ) -> None:
        """The client is gone: hang up where that stops the bill, else read to the end."""
        stalled = isinstance(reason, ClientStalled)
        attempt.outcome = CLIENT_STALLED if stalled else CLIENT_CANCELLED
        if stalled:
            exchange.client.cut()
        if answer is None or attempt.candidate.offer.cancel_stops_billing:
            attempt.cancel_applied = "abort"
            return
        await drain(exchange, attempt, answer, gap_s=self.limits.token_gap_timeout_s)

    def _report(self, exchange: Exchange, attempt: Attempt) -> None:
        """Tell the breaker how the offer did; the client's own doings do not count, nor ours."""
        access, now_ms = attempt.candidate.offer.access, self.clock.now_ms()
        caller, problem = exchange.principal.tenant_id, attempt.failure
        was_answering = attempt.read.chunks > 0
        # A long answer, or a client that reads slowly.
        is_long = attempt.outcome == DEADLINE and was_answering
        if problem is None and (attempt.outcome == OK or was_answering):
            self.breaker.success(access, caller, now_ms)
        elif problem is None or not problem.counts or is_long:
            self.breaker.release(access, caller)
        else:
            self.breaker.failure(
                access,
                caller,
                now_ms,
                reason=problem.code,
                permanent=problem.permanent,
                concerns_all=problem.concerns_all,
                retry_after_ms=int((problem.retry_after_s or 0) * 1000),
            )


def new_attempt(exchange: Exchange, candidate: Candidate, *, number: int, clock: Clock) -> Attempt:
    offer = candidate.offer
    reader = wire_for(offer.wire).reader(exchange.request, offer)
    return Attempt(number, candidate, reader, Stopwatch(clock))


def _own_up(attempt: Attempt, *, still_s: float) -> None:
    """A seller is not to blame for an exchange in which we did not listen for a while: it may have
    ended it for that."""
    problem = attempt.failure
    if not still_s or not isinstance(problem, Timeout | StreamBroken | ConnectFailed):
        return
    said = f"this process stood still for {still_s:.1f} s; then: {problem}"
    logger.warning("%s: %s", attempt.candidate.offer.sku, said)
    attempt.failure = OwnTrouble(said, charged=problem.charged)
    if attempt.outcome in (UPSTREAM_ERROR, UPSTREAM_CUT):
        attempt.outcome = GATEWAY_ERROR


def _fail(attempt: Attempt, problem: ProviderError) -> None:
    attempt.failure = problem
    if isinstance(problem, BadRequest):
        attempt.outcome = REFUSED
    elif isinstance(problem, OwnTrouble):
        attempt.outcome = GATEWAY_ERROR
    else:
        attempt.outcome = UPSTREAM_CUT if attempt.shown.chunks else UPSTREAM_ERROR


def _may_fall_back(exchange: Exchange, attempt: Attempt) -> bool:
    """Only before the first byte, and only for what another offer may do better."""
    if exchange.client.started or exchange.client.watchdog.client_left:
        return False
    problem = attempt.failure
    return problem is not None and problem.retryable and attempt.outcome != DEADLINE
