"""Why an upstream attempt failed. Facts only: how a caller is told is decided in gateway.errors.

    ProviderError
    ├── ConnectFailed      no connection, nothing was sent
    ├── Timeout            silent for longer than allowed
    ├── Overloaded         503, 529: busy, not broken
    ├── UpstreamFailed     any other 5xx
    ├── RateLimited        429, with Retry-After where given
    ├── AuthFailed         401, 402, 403: our credential is dead until somebody acts
    ├── ModelNotFound      404: our catalogue is wrong
    ├── BadRequest         400: the request's own fault
    │   ├── ContextTooLong
    │   └── ContentFiltered
    ├── StreamBroken       the answer ended before its finish
    └── ProtocolError      the vendor sent what its dialect does not allow

`retryable` (another offer may be tried) is decided here and nowhere else. `charged` says
whether the vendor may bill us; `permanent` opens the breaker at once.
"""


class ProviderError(Exception):
    """Base of all. `message` is the vendor's, cut to a bounded length; it may be shown."""

    code = "upstream_error"
    retryable = True
    charged = False
    permanent = False

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        if code:
            self.code = code


class ConnectFailed(ProviderError):
    """`message` names nothing of ours; the text itself says which host and why, for logs and for
    whoever gave the address."""

    code = "connect_failed"

    def __init__(self, detail: str) -> None:
        super().__init__("no connection could be made")
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


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


class ModelNotFound(ProviderError):
    code = "upstream_model_not_found"
    permanent = True


class BadRequest(ProviderError):
    """Wrong wherever it is sent. `param` names the field where that is known."""

    code = "invalid_request"
    retryable = False

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
