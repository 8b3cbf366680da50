"""A refused hold in the caller's words: which scope, what is left of it, and what to do. Pure."""

from billing.holding.holds import Refused
from billing.money import PICO_PER_NANO, usd_json
from gateway.dataplane.auth import Principal
from gateway.dataplane.exchange import Hold
from gateway.errors import (
    GatewayError,
    InvalidApiKey,
    NeverFits,
    OverBudget,
    PermissionDenied,
    RateLimited,
)


def error_of(refused: Refused, principal: Principal, hold: Hold | None = None) -> GatewayError:
    """A refused hold as the error that the caller sees, with the scope and what is left."""
    scope = principal.called(refused.scope_kind, refused.scope_id)
    detail = {
        "scope": refused.scope_kind,
        "scope_id": refused.scope_id,
        "window": refused.window,
    }
    if refused.code == "key_revoked":
        return InvalidApiKey("This API key was revoked.", code="revoked_api_key")
    if refused.code == "tenant_suspended":
        return PermissionDenied("This tenant is suspended.", code="tenant_suspended")
    if refused.code == "over_budget":
        return _over_budget(refused, scope, 0 if hold is None else hold.nano, detail)
    if refused.code == "too_many_sessions":
        return RateLimited(
            f"{refused.limit_nano} sessions of this tenant are open. One is over when nobody has "
            "called in it for a day; send no session id, or that of an open one.",
            code="too_many_sessions",
            detail=detail,
            retryable=False,
        )
    return _over_rate(refused, scope, hold, detail)


def _over_rate(
    refused: Refused, scope: str, hold: Hold | None, detail: dict[str, str]
) -> GatewayError:
    """Too much for now; where it would be too much at any time, waiting is not asked for."""
    limit, left = refused.limit_nano, refused.left_nano
    wanted = hold.tokens if hold is not None and refused.window == "tpm" else 1
    numbers = {**detail, "limit": limit, "left": left, "wanted": wanted}
    if wanted > limit:
        return NeverFits(_never_fits(refused, scope, hold), detail=numbers)
    retry_after_s = max(1, -(-refused.retry_after_ms // 1000))
    words = {
        "rpm": f"{limit} requests per minute",
        "tpm": f"{limit} tokens per minute, {left} left; this request may take {wanted}",
        "concurrency": f"{limit} requests at the same time",
    }.get(refused.window, "its rate limit")
    return RateLimited(
        f"Rate limit of {scope}: {words}. Try again in {retry_after_s} s.",
        code="concurrency_exceeded" if refused.code == "concurrency" else "rate_limit_exceeded",
        retry_after_s=retry_after_s,
        detail=numbers,
    )


def _never_fits(refused: Refused, scope: str, hold: Hold | None) -> str:
    if hold is None or refused.window != "tpm":
        return f"The rate limit of {scope} admits no requests at all."
    return (
        f"This request may take {hold.tokens} tokens ({hold.input_tokens} of prompt, "
        f"{hold.output_tokens} of answer), and the rate limit of {scope} is "
        f"{refused.limit_nano} tokens per minute: it can never be admitted. "
        "Lower max_tokens, or shorten the prompt."
    )


def _over_budget(
    refused: Refused, scope: str, hold_nano: int, detail: dict[str, str]
) -> OverBudget:
    left, needed = _usd(refused.left_nano), _usd(hold_nano)
    what = "credit" if refused.window == "credit" else f"limit per {refused.window}"
    if refused.window == "session":
        what, scope = "limit", "this session"
    return OverBudget(
        f"The {what} of {scope} has ${left} left; this request may cost up to ${needed}. "
        "Lower max_tokens, or ask for more.",
        detail={
            **detail,
            "limit_usd": _usd(refused.limit_nano),
            "left_usd": left,
            "needed_usd": needed,
        },
    )


def _usd(nano: int) -> str:
    return usd_json(nano * PICO_PER_NANO).decode()
