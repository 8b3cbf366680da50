"""How an answer begins and ends for the client: its headers; the receipt, an error, or an error
event. All but `tell` is pure.
"""

from billing.money import PICO_PER_NANO, usd_json
from billing.outcomes import DEADLINE, OK, STOPPED
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.inbound.watchdog import ClientLeft, ClientStalled
from gateway.errors import AllAttemptsFailed, DeadlineExceeded, GatewayError, InvalidRequest
from gateway.routing.breaker import Breaker
from providers.chat import Receipt
from providers.errors import (
    AccountDoubted,
    BadRequest,
    Overloaded,
    OwnTrouble,
    ProviderError,
    RateLimited,
    Timeout,
)
from providers.wires import registry

Head = list[tuple[bytes, bytes]]
LEFT_OUT_MAX = 500


def head_of(exchange: Exchange) -> Head:
    """The answer's headers; the offer is the one that serves. A session's cost is as it was when
    the request was admitted."""
    head = [
        (b"content-type", exchange.writer.content_type),
        (b"cache-control", b"no-store"),
        (b"x-tokenhouse-offer", exchange.last.candidate.offer.sku.encode()),
    ]
    candidate = exchange.last.candidate
    if by := candidate.cut_by or candidate.limited_by:
        limit = f"{candidate.max_output_tokens}; by={by}"
        head.append((b"x-tokenhouse-max-tokens", limit.encode()))
    if unsaid := registry.left_out(exchange.request, candidate.offer):
        head.append((b"x-tokenhouse-left-out", ", ".join(unsaid)[:LEFT_OUT_MAX].encode()))
    if exchange.session_nano is not None and exchange.request.stream:
        head.append(session_header(exchange.session_nano * PICO_PER_NANO))
    return head


def session_header(cost_pico: int) -> tuple[bytes, bytes]:
    return (b"x-session-cost", usd_json(cost_pico))


async def tell(
    exchange: Exchange, receipt: Receipt, *, breaker: Breaker, now_ms: int, stall_s: float
) -> None:
    """The last bytes: what it cost is booked by now, and the client may know."""
    client, attempt = exchange.client, exchange.last
    if client.watchdog.client_left:
        return
    client.watchdog.grant(stall_s)
    try:
        if attempt.outcome in (OK, STOPPED) and exchange.request.stream:
            if not client.started:
                await client.start(200, head_of(exchange))
            await client.end(exchange.writer.end(receipt))
        elif attempt.outcome == OK:
            await client.answer(200, *whole(exchange, receipt))
        elif not client.started:
            # How long the offer that failed last will be left alone.
            access, caller = attempt.candidate.offer.access, exchange.principal.tenant_id
            raise error_of(exchange, rest_ms=breaker.retry_after_ms(access, caller, now_ms))
        elif not client.cut_off:
            await client.end(broken(exchange, receipt))
    except ClientLeft:
        return
    except ClientStalled:
        client.cut()


def whole(exchange: Exchange, receipt: Receipt) -> tuple[Head, bytes]:
    """Headers and body of an answer that is not streamed."""
    body = exchange.writer.whole(exchange.chunks, receipt)
    head = head_of(exchange)
    head.append((b"x-tokenhouse-cost", usd_json(receipt.cost_pico)))
    if receipt.held is not None:
        head.append((b"x-tokenhouse-held", usd_json(receipt.held.amount_pico)))
        head.append((b"x-tokenhouse-held-reason", _ascii(receipt.held.reason)))
    if receipt.session_cost_pico is not None:
        head.append(session_header(receipt.session_cost_pico))
    return head, body


def _ascii(words: str) -> bytes:
    """As a header can carry them: some are a seller's own."""
    return "".join(c if c.isprintable() else " " for c in words).encode("ascii", "replace")


def broken(exchange: Exchange, receipt: Receipt) -> bytes:
    """The last event of a stream that did not reach its finish."""
    error = error_of(exchange)
    return exchange.writer.error(
        status=error.status, code=error.code, message=error.message, receipt=receipt
    )


def error_of(exchange: Exchange, *, rest_ms: int = 0) -> GatewayError:
    """What the last attempt's failure means to the caller; `rest_ms` is how long its offer will be
    left alone."""
    attempt = exchange.last
    problem = attempt.failure
    if attempt.outcome == DEADLINE or problem is None:
        return DeadlineExceeded("The request was ended before it was complete.")
    if isinstance(problem, BadRequest):
        return InvalidRequest(problem.message, code=problem.code, param=problem.param)
    status, error_type = _status_of(problem)
    retry_after_s = None if problem.retry_after_s is None else max(1, round(problem.retry_after_s))
    if status in (429, 503):
        retry_after_s = max(retry_after_s or 1, -(-rest_ms // 1000))
    seller = attempt.candidate.offer.provider_name
    message = problem.message
    if not message.lower().startswith(seller.lower()):  # many name themselves
        message = f"{seller}: {message}"
    if problem.detail:
        message += f" (request {exchange.request_id})"
    return AllAttemptsFailed(
        message,
        status=status,
        code=problem.code,
        error_type=error_type,
        retry_after_s=retry_after_s,
        attempts=exchange.notes(),
        retryable=False if problem.permanent else None,
    )


def _status_of(problem: ProviderError) -> tuple[int, str]:
    """An upstream's refusal of our credential is our outage, never the caller's wrong key."""
    if isinstance(problem, RateLimited):
        return 429, "rate_limit_error"
    if isinstance(problem, Timeout):
        return 504, "timeout_error"
    if isinstance(problem, Overloaded | OwnTrouble | AccountDoubted) or problem.permanent:
        return 503, "api_error"
    return 502, "api_error"
