"""An upstream's error answer -> the ProviderError that it means.

By status first, then by the codes in the body, then by its words: vendors disagree about all three,
and some put an exhausted balance under 429 or a filter under 403. Words may be a caller's own,
repeated, so that what they say concerns that caller only: that a credential is dead is known from
a 401 or a code.
"""

from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from providers import errors
from providers.chat import WireName
from providers.wires.error_words import (
    ACCOUNT_CODES,
    ACCOUNT_WORDS,
    CONTEXT_CODES,
    CONTEXT_WORDS,
    FILTER_CODES,
    FILTER_WORDS,
    INTERNAL,
    MODEL_CODES,
    MODEL_WORDS,
    SIZE_WORDS,
    STATUS_OF_CODE,
    UNABLE_WORDS,
)

MESSAGE_MAX = 500
RETRY_AFTER_S_MAX = 3600.0
HIDDEN = "…"


class _Said(NamedTuple):
    """An error object in our words. `codes` are all that it calls itself, `lowered` its message."""

    message: str
    lowered: str
    codes: frozenset[str]


def failure(
    status: int, headers: Mapping[str, str], body: bytes, wire: WireName
) -> errors.ProviderError:
    """The error that an answer with this status means. Header names are lower case."""
    if status == 403 and body.lstrip().startswith(b"<"):
        # A firewall's page: it disliked these words, and knows nothing of our credential.
        return errors.UpstreamFailed("the upstream's firewall refused the request", status=status)
    said = _read(body)
    return _error(status, said, fallback=f"the upstream answered {status}", headers=headers)


def in_stream(error: object) -> errors.ProviderError:
    """The error that an error object inside a 200 answer means."""
    said = _words(error)
    status = next((STATUS_OF_CODE[code] for code in said.codes if code in STATUS_OF_CODE), 0)
    if not status and isinstance(error, dict):
        status = _as_status(error.get("code"))  # OpenRouter and vLLM put the HTTP status there
    if not 400 <= status <= 599:
        status = 500
    return _error(status, said, fallback="the upstream reported an error", headers={})


def _as_status(code: object) -> int:
    text = str(code)
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else 0


def _error(
    status: int, said: _Said, *, fallback: str, headers: Mapping[str, str]
) -> errors.ProviderError:
    message = _shown(said.message) or fallback
    if status in (401, 402, 403, 429):
        return _account(status, said, message, _retry_after(headers))
    if status in (400, 404, 413, 422) or status >= 500:
        found = _own_fault(status, said, message) or _account_words(status, said)
        if found is not None:
            return found
    if status == 404:
        return errors.ModelNotFound(said.message, status=status)
    if status == 501:
        return errors.RequestRefused(message, status=status)
    return _by_status(status, message, _retry_after(headers))


def _by_status(status: int, message: str, retry_after_s: float | None) -> errors.ProviderError:
    if status in (408, 504):
        return errors.Timeout(message, status=status, retry_after_s=retry_after_s)
    if status in (409, 498, 503, 529):
        return errors.Overloaded(message, status=status, retry_after_s=retry_after_s)
    if status == 424 or status >= 500:
        return errors.UpstreamFailed(message, status=status, retry_after_s=retry_after_s)
    if 400 <= status < 500:
        return errors.BadRequest(message, status=status)
    return errors.ProtocolError(message, status=status)


def _account(
    status: int, said: _Said, message: str, retry_after_s: float | None
) -> errors.ProviderError:
    """What a refusal that may be about our account is about: the account, this request or this
    model. Where nothing says so, a 401 is about the credential and the others are doubted."""
    is_limit = status == 429
    if said.codes & ACCOUNT_CODES and not said.codes & MODEL_CODES:
        return _refused(errors.AuthFailed, status)
    if said.codes & FILTER_CODES or (status == 403 and FILTER_WORDS.search(said.lowered)):
        return errors.ContentFiltered(message, status=status)
    if said.codes & MODEL_CODES or (not is_limit and MODEL_WORDS.search(said.lowered)):
        return errors.ModelNotFound(said.message, status=status)
    if SIZE_WORDS.search(said.lowered) and (not is_limit or "too large" in said.lowered):
        return errors.RequestRefused(_TOO_LARGE, status=status)
    if is_limit and not ACCOUNT_WORDS.search(said.lowered):
        return errors.RateLimited(message, status=status, retry_after_s=retry_after_s)
    return _refused(errors.AuthFailed if status == 401 else errors.AccountDoubted, status)


_TOO_LARGE = "the request is larger than the gateway's account at this seller allows"


def _refused(
    kind: type[errors.AuthFailed | errors.AccountDoubted], status: int
) -> errors.ProviderError:
    """Vendors repeat parts of the key and of the operator's account, which callers must not see."""
    return kind(f"the gateway's credential was refused ({status})", status=status)


def _own_fault(status: int, said: _Said, message: str) -> errors.ProviderError | None:
    """What lies in the request, or in the name that we call the model by; None where nothing says
    so and the status does not either."""
    if said.codes & CONTEXT_CODES or CONTEXT_WORDS.search(said.lowered):
        return errors.ContextTooLong(message, status=status)
    if said.codes & FILTER_CODES:
        return errors.ContentFiltered(message, status=status)
    if said.codes & MODEL_CODES or MODEL_WORDS.search(said.lowered):
        return errors.ModelNotFound(said.message, status=status)
    if status == 404:
        refused = UNABLE_WORDS.search(said.lowered)
        return errors.RequestRefused(message, status=status) if refused else None
    if status >= 500:
        return None
    if FILTER_WORDS.search(said.lowered):
        return errors.ContentFiltered(message, status=status)
    if SIZE_WORDS.search(said.lowered):
        return errors.RequestRefused(_TOO_LARGE, status=status)
    return _account_words(status, said) or errors.BadRequest(message, status=status)


def _account_words(status: int, said: _Said) -> errors.ProviderError | None:
    if said.codes & ACCOUNT_CODES:
        return _refused(errors.AuthFailed, status)
    if status < 500 and ACCOUNT_WORDS.search(said.lowered):
        return _refused(errors.AccountDoubted, status)
    return None


@lru_cache(maxsize=1024)
def is_internal(name: str) -> bool:
    """Whether a name of a model is a path of the operator's."""
    return name[:1] in ("/", "~", "\\") or INTERNAL.fullmatch(name) is not None


def _shown(message: str) -> str:
    """Without the operator's paths and addresses."""
    return INTERNAL.sub(HIDDEN, message)


def _read(body: bytes) -> _Said:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:MESSAGE_MAX].decode(errors="replace").strip()
        return _Said(text, text.lower(), frozenset())
    if isinstance(document, list) and document:
        document = document[0]  # Google's OpenAI surface wraps its errors in a list
    if not isinstance(document, dict):
        return _Said("", "", frozenset())
    said = _words(document.get("error") or document)
    beside = document.get("error_type")  # how TGI says it
    return said._replace(codes=said.codes | _codes([beside]))


def _words(error: object) -> _Said:
    """The message and the codes of an error object, whatever its shape."""
    if isinstance(error, str):
        return _Said(error[:MESSAGE_MAX], error[:MESSAGE_MAX].lower(), frozenset())
    if not isinstance(error, dict):
        return _Said("", "", frozenset())
    message: Any = error.get("message") or error.get("detail") or error.get("error") or ""
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    inner = error.get("innererror")
    named = [error.get("code"), error.get("type"), error.get("error_type"), error.get("reason")]
    named += [inner.get("code")] if isinstance(inner, dict) else []
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        # OpenRouter says 403 of it. Who sends such a prompt must not close the offer to others.
        named.append("moderation")
    message = message[:MESSAGE_MAX]
    return _Said(message, message.lower(), _codes(named))


def _codes(named: Iterable[object]) -> frozenset[str]:
    return frozenset(str(code).lower() for code in named if isinstance(code, str) and code)


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
