"""Why an upstream attempt failed. Facts only: how a caller is told is decided in gateway.errors.

    ProviderError
    ├── OwnTrouble         we could not try: no descriptors, no resolver, a process that stood still
    ├── ConnectFailed      no connection, nothing was sent
    ├── Timeout            silent for longer than allowed
    ├── Overloaded         503, 529: busy, not broken
    ├── UpstreamFailed     any other 5xx
    ├── RateLimited        429, with Retry-After where given
    ├── AuthFailed         our credential is refused, whatever is asked: dead until somebody acts
    ├── AccountDoubted     402, 403 that do not say whether all of the account is meant: checked
    ├── ModelNotFound      404: our catalogue is wrong, or our credential may not use this model
    ├── BadRequest         400: the request's own fault
    │   ├── RequestRefused     only here: too large for our account, or not supported
    │   ├── CannotSay      not in this seller's API: another may be tried
    │   ├── ContextTooLong
    │   └── ContentFiltered
    ├── StreamBroken       the answer ended before its finish
    └── ProtocolError      the vendor sent what its dialect does not allow

`retryable` (another offer may be tried) is decided here and nowhere else. `charged` says whether
the vendor may bill us. What the breaker makes of it: `counts` says whether it speaks against the
offer at all, `permanent` closes it at once and `concerns_all` to every caller: what no request can
cause.
"""


class ProviderError(Exception):
    """Base of all. `message` is the vendor's, cut to a bounded length; it may be shown. `detail`
    names what callers must not see (hosts, the operator's paths), for logs and operators.
    """

    code = "upstream_error"
    retryable = True
    charged = False
    counts = True
    permanent = False
    concerns_all = False

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        retry_after_s: float | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.detail = detail
        if code:
            self.code = code

    def __str__(self) -> str:
        return self.detail or self.message


class OwnTrouble(ProviderError):
    """Says nothing of the offer, which may have worked, and `charged` for it, all the same."""

    code = "gateway_trouble"
    counts = False

    def __init__(self, detail: str, *, charged: bool = False) -> None:
        super().__init__("the gateway could not carry the call through", detail=detail)
        self.charged = charged


class ConnectFailed(ProviderError):
    code = "connect_failed"

    def __init__(self, detail: str) -> None:
        super().__init__("no connection could be made", detail=detail)


class Timeout(ProviderError):
    """May have been computed and billed although nothing came."""

    code = "upstream_timeout"
    charged = True


class Overloaded(ProviderError):
    code = "upstream_overloaded"


class UpstreamFailed(ProviderError):
    code = "upstream_failed"


class RateLimited(ProviderError):
    code = "upstream_rate_limited"


class AuthFailed(ProviderError):
    code = "upstream_credential_refused"
    permanent = True
    concerns_all = True


class AccountDoubted(ProviderError):
    """One caller's request may have caused it; whether the credential is dead is asked apart."""

    code = "upstream_account_doubted"


class ModelNotFound(ProviderError):
    code = "upstream_model_not_found"
    permanent = True

    def __init__(self, detail: str, *, status: int = 0) -> None:
        super().__init__(
            "the seller does not serve the model that the catalogue names",
            status=status,
            detail=detail,
        )


class BadRequest(ProviderError):
    """Wrong wherever it is sent. `param` names the field where that is known."""

    code = "invalid_request"
    retryable = False
    counts = False

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "",
        retry_after_s: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, retry_after_s=retry_after_s)
        self.param = param


class RequestRefused(BadRequest):
    """Wrong for this seller only."""

    code = "upstream_request_refused"
    retryable = True


class CannotSay(BadRequest):
    """This seller's API has no words for it, another's may have; nothing was sent."""

    code = "unsupported_by_model"
    retryable = True


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"


class ContentFiltered(BadRequest):
    code = "content_filter"


class StreamBroken(ProviderError):
    """Cut before the finish. What was delivered until then was computed, and will be billed."""

    code = "upstream_cut"
    charged = True

    def __init__(self, message: str, *, after_first_byte: bool) -> None:
        super().__init__(message)
        self.after_first_byte = after_first_byte


class ProtocolError(ProviderError):
    code = "upstream_protocol_error"
    charged = True
