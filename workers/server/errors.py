"""Errors of the worker's API in OpenAI's shape.

ApiError
  BadRequest(400)  ContextTooLong(400)  Unauthorized(401)  ModelUnknown(404)  NotFound(404)
  MethodNotAllowed(405)  BodyTooLarge(413)  Overloaded(429)  EngineFailed(500)
"""

from workers.server.bodies import ErrorBody, ErrorFacts
from workers.text.structured import GrammarFailed


class ApiError(Exception):
    status = 500
    type = "server_error"

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return []

    def body(self) -> ErrorBody:
        return ErrorBody(ErrorFacts(self.message, self.type, self.param, self.code))


class BadRequest(ApiError):
    status = 400
    type = "invalid_request_error"


class ContextTooLong(BadRequest):
    def __init__(self, *, prompt_tokens: int, context_length: int, param: str) -> None:
        super().__init__(
            f"This model's context holds {context_length} tokens, of which at least one must be "
            f"left for the answer; the prompt has {prompt_tokens} tokens.",
            code="context_length_exceeded",
            param=param,
        )


class Unauthorized(ApiError):
    status = 401
    type = "authentication_error"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"


class BodyTooLarge(ApiError):
    status = 413
    type = "invalid_request_error"


class Overloaded(ApiError):
    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, code="queue_full")
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"retry-after", str(self.retry_after_s).encode())]


class EngineFailed(ApiError):
    status = 500
    type = "server_error"


def failed(failure: Exception | None) -> ApiError:
    """Why the engine gave a request up, as the caller shall hear it."""
    if isinstance(failure, GrammarFailed):
        return BadRequest(
            f"The schema became too complex while the answer was written: {failure}",
            code="schema_too_complex",
            param="response_format",
        )
    return EngineFailed(
        "The model produced no usable numbers for this request", code="generation_failed"
    )
