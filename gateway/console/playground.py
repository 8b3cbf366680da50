"""Calls the public API for the playground, as any client would, and passes its events on.

The key is made for one visit, ends within the hour and lives only in the page that uses it.
The browser cannot call the API itself: that is another origin, which pages must not reach.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError

PROMPT_LENGTH_MAX: Final = 20_000
OUTPUT_TOKENS: Final = 512
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
READ_TIMEOUT: Final = timedelta(seconds=90)
WHOLE_TIMEOUT: Final = timedelta(seconds=300)


@dataclass(frozen=True, slots=True)
class Question:
    key: str
    model: str
    prompt: str


def body_of(question: Question) -> dict[str, Any]:
    return {
        "model": question.model,
        "messages": [{"role": "user", "content": question.prompt}],
        "max_tokens": OUTPUT_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def answer(question: Question) -> AsyncIterator[bytes]:
    """First an event `head` with status, request id and offer; then the API's own events."""
    client = (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .timeout(WHOLE_TIMEOUT)
        .build()
    )
    try:
        request = (
            client.post(f"{settings.PUBLIC_API_URL}/v1/chat/completions")
            .bearer_auth(question.key)
            .body_json(body_of(question))
            .streamed_read_buffer_limit(0)
            .build_streamed()
        )
    except ValueError:  # a key that is no header's value
        yield _event("refused", {"message": "This is not an API key."})
        return
    try:
        async with client, request as response:
            yield _event("head", _head(response.status, response.get_header))
            if response.status != 200:
                yield _event("refused", {"message": _words(await response.bytes())})
                return
            while (chunk := await response.body_reader.read_chunk()) is not None:
                yield bytes(chunk)
    except PyreqwestError:
        yield _event("refused", {"message": "The API did not answer. Try again."})


def _head(status: int, header: Any) -> dict[str, Any]:
    return {
        "status": status,
        "request_id": header("x-request-id"),
        "offer": header("x-tokenhouse-offer"),
    }


def _words(body: Any) -> str:
    try:
        return str(json.loads(bytes(body))["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "The API answered with something that is not an error of its own."


def _event(name: str, payload: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(payload)}\n\n".encode()
