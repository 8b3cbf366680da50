"""An upstream's error answer -> the ProviderError that it means.

By status first, then by what the body says: vendors disagree about codes, and some put an
exhausted balance under 429. The status decides what happens next, the text is only shown.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from providers import errors
from providers.chat import Dialect

MESSAGE_MAX = 500
RETRY_AFTER_S_MAX = 3600.0

_CONTEXT_WORDS = (
    "context length",
    "context window",
    "context_length",
    "maximum context",
    "prompt is too long",
    "too many tokens",
)
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation"})
_OUT_OF_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_error"})
# What an error event inside a 200 stream calls itself, in both dialects.
_STATUS_OF_TYPE = {
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "authentication_error": 401,
    "permission_error": 403,
    "billing_error": 402,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "request_too_large": 413,
    "timeout_error": 504,
    "context_length_exceeded": 400,
    "content_filter": 400,
}


def failure(
    status: int, headers: Mapping[str, str], body: bytes, dialect: Dialect
) -> errors.ProviderError:
    """The error that an answer with this status means. Header names are lower case."""
    message, code = _read(body)
    if status == 403 and body.lstrip().startswith(b"<"):
        # A firewall's page: it disliked these words, and knows nothing of our credential.
        return errors.UpstreamFailed("the upstream's firewall refused the request", status=status)
    return _error(
        status,
        message or f"the upstream answered {status}",
        code,
        retry_after_s=_retry_after(headers),
    )


def in_stream(error: object) -> errors.ProviderError:
    """The error that an error object inside a 200 answer means."""
    message, code = _words(error)
    status = _STATUS_OF_TYPE.get(code, 0)
    if not status and isinstance(error, dict) and isinstance(error.get("code"), int):
        status = error["code"]  # OpenRouter and vLLM put the HTTP status there
    if not 400 <= status <= 599:
        status = 500
    return _error(status, message or "the upstream reported an error", code, retry_after_s=None)


def _error(
    status: int, message: str, code: str, *, retry_after_s: float | None
) -> errors.ProviderError:
    if status == 429 and code not in _OUT_OF_CREDIT:
        return errors.RateLimited(message, status=status, retry_after_s=retry_after_s)
    if status == 403 and code in _FILTER_CODES:
        return errors.ContentFiltered(message, status=status)
    if status in (401, 402, 403, 429):
        # Vendors repeat parts of the key and of the operator's account, which callers must not see.
        return errors.AuthFailed(f"the gateway's credential was refused ({status})", status=status)
    if status in (400, 413, 422):
        return _own_fault(status, message, code)
    if status == 404:
        return errors.ModelNotFound(message, status=status)
    if status in (408, 504):
        return errors.Timeout(message, status=status, retry_after_s=retry_after_s)
    if status in (409, 503, 529):
        return errors.Overloaded(message, status=status, retry_after_s=retry_after_s)
    if status >= 500:
        return errors.UpstreamFailed(message, status=status, retry_after_s=retry_after_s)
    if 400 <= status < 500:
        return errors.BadRequest(message, status=status)
    return errors.ProtocolError(message, status=status)


def _own_fault(status: int, message: str, code: str) -> errors.BadRequest:
    lowered = message.lower()
    if code == "context_length_exceeded" or any(word in lowered for word in _CONTEXT_WORDS):
        return errors.ContextTooLong(message, status=status)
    if code in _FILTER_CODES:
        return errors.ContentFiltered(message, status=status)
    return errors.BadRequest(message, status=status)


def _read(body: bytes) -> tuple[str, str]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:MESSAGE_MAX].decode(errors="replace").strip(), ""
    if isinstance(document, list) and document:
        document = document[0]  # Google's OpenAI surface wraps its errors in a list
    if isinstance(document, dict):
        return _words(document.get("error") or document)
    return "", ""


def _words(error: object) -> tuple[str, str]:
    """The message and the most telling code of an error object, whatever its shape."""
    if isinstance(error, str):
        return error[:MESSAGE_MAX], ""
    if not isinstance(error, dict):
        return "", ""
    message: Any = error.get("message") or error.get("detail") or error.get("error") or ""
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    code = error.get("code")
    if not isinstance(code, str) or not code:
        code = error.get("type")
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        # OpenRouter says 403 of it. Who sends such a prompt must not close the offer to others.
        code = "moderation"
    return message[:MESSAGE_MAX], code if isinstance(code, str) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait; a date is taken relative to the answer's own Date, so no clock is needed."""
    text = headers.get("retry-after-ms")
    try:
        if text is not None:
            seconds = float(text) / 1000
        elif (text := headers.get("retry-after")) is None:
            return None
        elif "," in text or ":" in text:
            then = parsedate_to_datetime(text)
            seconds = (then - parsedate_to_datetime(headers["date"])).total_seconds()
        else:
            seconds = float(text)
    except (ValueError, KeyError, TypeError):
        return None
    if not seconds >= 0:  # also refuses NaN
        return None
    return min(seconds, RETRY_AFTER_S_MAX)
