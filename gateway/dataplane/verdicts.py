"""How an exchange ends for the client: the whole answer, an error, or an error event. Pure."""

from billing.money import usd_json
from billing.outcomes import DEADLINE
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.relay import head_of, session_header
from gateway.errors import AllAttemptsFailed, DeadlineExceeded, GatewayError, InvalidRequest
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

Head = list[tuple[bytes, bytes]]


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
