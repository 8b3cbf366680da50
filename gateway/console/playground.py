"""Calls the public API for the playground, as any client would, and passes its events on.

The key is made for one visit, ends within the hour and lives only in the page that uses it.
The browser cannot call the API itself: that is another origin, which pages must not reach.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict, TypeVar

from django.conf import settings

from providers.chat import UpstreamCall
from providers.errors import ProviderError
from providers.outbound.upstream import Answer, Upstream

T = TypeVar("T")

PROMPT_LENGTH_MAX: Final = 20_000
OUTPUT_TOKENS: Final = 512
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 90.0
WHOLE_TIMEOUT_S: Final = 300.0
REFUSAL_BYTES_MAX: Final = 64 * 1024
# What can be the value of a header.
KEY: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Question:
    key: str
    model: str
    prompt: str


class Message(TypedDict):
    role: str
    content: str


class StreamOptions(TypedDict):
    include_usage: bool


class Body(TypedDict):
    """A question as the public API takes it."""

    model: str
    messages: list[Message]
    max_tokens: int
    stream: bool
    stream_options: StreamOptions


class Head(TypedDict):
    status: int
    request_id: str | None
    offer: str | None


def body_of(question: Question) -> Body:
    return {
        "model": question.model,
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": OUTPUT_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def answer(question: Question) -> AsyncIterator[bytes]:
    """First an event `head` with status, request id and offer; then the API's own events."""
    if not KEY.fullmatch(question.key):
        yield _event("refused", {"message": "This is not an API key."})
        return
    upstream = Upstream(connect_timeout_s=CONNECT_TIMEOUT_S, clock=time)
    until_s = time.monotonic() + WHOLE_TIMEOUT_S
    try:
        answered = await _in_time(upstream.open(_call(question), approved=True), until_s)
        try:
            yield _event("head", _head(answered))
            if answered.status != 200:
                body = await _in_time(answered.whole(bytes_max=REFUSAL_BYTES_MAX), until_s)
                yield _event("refused", {"message": _words(body or b"")})
                return
            while (piece := await _in_time(answered.read(), until_s)) is not None:
                yield piece
        finally:
            answered.close()
    except (ProviderError, TimeoutError):
        yield _event("refused", {"message": "The API did not answer. Try again."})
    finally:
        upstream.close()


async def _in_time(waited_for: Coroutine[Any, Any, T], until_s: float) -> T:
    """What comes within the limit of one step, and of the whole answer."""
    async with asyncio.timeout(min(READ_TIMEOUT_S, until_s - time.monotonic())):
        return await waited_for


def _call(question: Question) -> UpstreamCall:
    return UpstreamCall(
        url=f"{settings.PUBLIC_API_URL}/v1/chat/completions",
        headers={
            "authorization": f"Bearer {question.key}",
            "content-type": "application/json",
        },
        body=json.dumps(body_of(question)).encode(),
    )


def _head(answered: Answer) -> Head:
    headers = answered.headers()
    return {
        "status": answered.status,
        "request_id": headers.get("x-request-id"),
        "offer": headers.get("x-tokenhouse-offer"),
    }


def _words(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "The API answered with something that is not an error of its own."


def _event(name: str, payload: Mapping[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(payload)}\n\n".encode()
