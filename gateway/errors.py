"""What a caller can be told, and the only place where a cause becomes an HTTP status.

    GatewayError
    ├── InvalidRequest 400              ├── RequestTooLarge 413
    ├── InvalidApiKey 401               ├── OverBudget 402
    ├── PermissionDenied 403            ├── RateLimited 429
    ├── ModelNotFound 404               ├── RouteNotFound 404, MethodNotAllowed 405
    ├── NeverFits 400                   ├── Unavailable 503
    ├── UnsupportedEncoding 415         │
    ├── RequestTimeout 408              ├── AllAttemptsFailed (the last attempt's status)
    ├── NoEligibleOffer 503             ├── DeadlineExceeded 504
    └── NobodySells 404                 └── UpgradeRequired 426

Surfaces render these in the caller's own dialect. Pure: no Django, no I/O. An outage of ours is
Unavailable, never 401, 402 or 403. `retryable` says whether the same request may succeed later:
where not, callers are told so, for some SDKs repeat whatever they are refused with.
"""

from collections.abc import Mapping
from typing import Final

from gateway.routing.explained import RejectionRow, TriedRow

# SDKs wait no longer than this; asked to, they call again at once instead.
WAITED_S_MAX: Final = 60

# What of ours can be away, and after how many seconds it is looked at again: what holds now may
# have ended then, and no sooner.
OUTAGES: Final[Mapping[str, int]] = {
    "clock_wrong": 1,
    "credit_untold": 5,
    "database_unavailable": 1,
    "out_of_memory_budget": 1,
    "registers_cold": 2,
    "registers_unavailable": 1,
    "service_unavailable": 1,
    "spool_unavailable": 2,
    "too_many_connections": 1,
}

# The code of what was served, and what a budget that only watches would have refused.
WOULD_REFUSE: Final = "would_refuse"


class GatewayError(Exception):
    """Base of all refusals. `detail` is shown in the console and, where harmless, to the caller."""

    status = 500
    type = "api_error"
    code = "internal_error"
    retryable = True
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        retry_after_s: int | None = None,
        detail: Mapping[str, object] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.detail = detail or {}
        if code:
            self.code = code
        if retryable is not None or (retry_after_s or 0) > WAITED_S_MAX:
            self.retryable = bool(retryable)


class InvalidRequest(GatewayError):
    """The request itself is wrong; `param` names the field."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    retryable = False


class RequestTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    retryable = False


class UnsupportedEncoding(GatewayError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_content_encoding"
    retryable = False
    headers = ((b"accept-encoding", b"gzip, deflate, zstd"),)


class RequestTimeout(GatewayError):
    """The caller was too slow in sending its request."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class InvalidApiKey(GatewayError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"
    retryable = False


class PermissionDenied(GatewayError):
    status = 403
    type = "permission_error"
    code = "permission_denied"
    retryable = False


class RouteNotFound(GatewayError):
    status = 404
    type = "not_found_error"
    code = "not_found"
    retryable = False


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    retryable = False


class ModelNotFound(GatewayError):
    """`nearest` are names that exist and look like the one asked for."""

    status = 404
    type = "not_found_error"
    code = "model_not_found"
    retryable = False

    def __init__(self, model: str, *, nearest: tuple[str, ...] = ()) -> None:
        hint = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
        super().__init__(
            f"The model `{model}` does not exist here.{hint}",
            param="model",
            detail={"model": model, "nearest": list(nearest)},
        )


class NobodySells(GatewayError):
    """The model exists, but none of its offers can be called by whoever asks; `reasons` says why
    for each. Clients know this code, and give up at once."""

    status = 404
    type = "not_found_error"
    code = "model_not_found"
    retryable = False

    def __init__(self, message: str, *, reasons: list[RejectionRow]) -> None:
        super().__init__(message, param="model", detail={"reasons": reasons})


class UpgradeRequired(GatewayError):
    """Another protocol was asked for than is spoken here; clients go on in plain HTTP."""

    status = 426
    type = "invalid_request_error"
    code = "upgrade_required"
    retryable = False
    headers = ((b"upgrade", b"HTTP/1.1"),)


class OverBudget(GatewayError):
    """A spend scope cannot cover the worst case of this request; `detail` names it."""

    status = 402
    type = "insufficient_quota"
    code = "over_budget"
    retryable = False


class RateLimited(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class NeverFits(GatewayError):
    """More than a rate limit allows at any time: waiting does not help, a smaller request does."""

    status = 400
    type = "invalid_request_error"
    code = "exceeds_rate_limit"
    retryable = False


class NoEligibleOffer(GatewayError):
    """Offers that could serve cannot be called for now; `reasons` says why for each."""

    status = 503
    type = "api_error"
    code = "no_eligible_offer"

    def __init__(self, message: str, *, reasons: list[RejectionRow], retry_after_s: int) -> None:
        super().__init__(message, detail={"reasons": reasons}, retry_after_s=retry_after_s)


class AllAttemptsFailed(GatewayError):
    """Every attempt ended before a byte was shown; carries the last one's status."""

    type = "api_error"
    code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        error_type: str = "",
        retry_after_s: int | None = None,
        attempts: list[TriedRow] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(
            message,
            code=code,
            retry_after_s=retry_after_s,
            detail={"attempts": attempts or []},
            retryable=retryable,
        )
        self.status = status
        if error_type:
            self.type = error_type


class Unavailable(GatewayError):
    """Something of ours is away: one of OUTAGES, and always with its Retry-After."""

    status = 503
    type = "api_error"
    code = "service_unavailable"

    def __init__(self, message: str, *, code: str = "service_unavailable") -> None:
        super().__init__(message, code=code, retry_after_s=OUTAGES[code])


class DeadlineExceeded(GatewayError):
    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"
