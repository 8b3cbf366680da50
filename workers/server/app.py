"""The worker's HTTP API: a plain ASGI callable over the engine's bridge.

Every call ends in `bridge.close`, so a client that leaves, or reads too slowly, frees its blocks.
"""

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from workers.engine import Progress
from workers.metrics import RequestUsage
from workers.sequence import FinishReason
from workers.server import errors
from workers.server.bridge import Busy, EngineBridge, Stopped, Stream
from workers.server.calls import AnyRequest, CallBuilder
from workers.server.protocol import ChatRequest, CompletionRequest, decode
from workers.server.responses import DONE, ResponseWriter, encode, event

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream"
RETRY_AFTER_S = 2
# Tokenising a text of this size takes about a millisecond; a longer one goes to a thread.
INLINE_BODY_BYTES = 16_384

logger = logging.getLogger(__name__)


class ClientGone(ConnectionError):
    """The client left or did not read in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    model_name: str
    bearer: str = ""
    max_body_bytes: int = 8 * 1024 * 1024
    send_timeout_s: float = 30.0
    created_s: int = field(default_factory=lambda: int(time.time()))


class App:
    def __init__(self, bridge: EngineBridge, builder: CallBuilder, config: ServerConfig) -> None:
        self._bridge = bridge
        self._builder = builder
        self._config = config
        self._open_paths: dict[str, Callable[[], Awaitable[tuple[bytes, bytes]]]] = {
            "/health": self._health
        }
        self._get_paths = {"/v1/models": self._models, "/metrics": self._metrics}
        self._post_paths: dict[str, type[AnyRequest]] = {
            "/v1/chat/completions": ChatRequest,
            "/v1/completions": CompletionRequest,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except errors.ApiError as error:
            await _respond(send, encode(error.body()), status=error.status, headers=error.headers)
        except ClientGone:
            return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in self._open_paths and method == "GET":
            body, content_type = await self._open_paths[path]()
            await _respond(send, body, content_type=content_type)
            return
        self._authorise(scope)
        if path in self._get_paths and method == "GET":
            body, content_type = await self._get_paths[path]()
            await _respond(send, body, content_type=content_type)
        elif path in self._post_paths and method == "POST":
            body = await self._read_body(receive)
            await self._generate(decode(body, self._post_paths[path]), len(body), receive, send)
        elif path in self._post_paths or path in self._get_paths:
            raise errors.MethodNotAllowed(f"{method} is not offered", code="method_not_allowed")
        else:
            raise errors.NotFound(f"There is no {path} here", code="not_found")

    def _authorise(self, scope: Scope) -> None:
        if not self._config.bearer:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + self._config.bearer.encode()):
            raise errors.Unauthorized("The bearer secret is wrong", code="invalid_api_key")

    async def _read_body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > self._config.max_body_bytes:
                raise errors.BodyTooLarge(
                    f"The body is larger than {self._config.max_body_bytes} bytes",
                    code="request_too_large",
                )
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    async def _health(self) -> tuple[bytes, bytes]:
        if not self._bridge.is_alive:
            raise errors.EngineFailed("The engine has stopped", code="engine_stopped")
        return encode({"status": "ok", "model": self._config.model_name}), JSON

    async def _models(self) -> tuple[bytes, bytes]:
        model = {
            "id": self._config.model_name,
            "object": "model",
            "created": self._config.created_s,
            "owned_by": "tokenhouse",
            "max_model_len": self._builder.engine.context_length,
        }
        return encode({"object": "list", "data": [model]}), JSON

    async def _metrics(self) -> tuple[bytes, bytes]:
        await self._bridge.load_now()
        return self._builder.engine.metrics.render(), b"text/plain; version=0.0.4"

    async def _generate(self, request: AnyRequest, size: int, receive: Receive, send: Send) -> None:
        if request.model != self._config.model_name:
            raise errors.NotFound(
                f"This worker serves {self._config.model_name}, not {request.model[:100]}",
                code="model_not_found",
                param="model",
            )
        if size > INLINE_BODY_BYTES:
            prompt = await asyncio.to_thread(self._builder.prompt, request)
        else:
            prompt = self._builder.prompt(request)
        grammar = None
        if request.schema is not None:
            grammar = await asyncio.to_thread(self._builder.grammar, request)
        requests = self._builder.requests(request, prompt, grammar)
        try:
            stream = self._bridge.submit(requests)
        except Busy:
            raise errors.Overloaded(
                f"{self._bridge.in_flight} requests are in flight", retry_after_s=RETRY_AFTER_S
            ) from None
        except Stopped:
            raise errors.EngineFailed("The engine has stopped", code="engine_stopped") from None
        writer = ResponseWriter(
            kind="chat" if isinstance(request, ChatRequest) else "text",
            response_id=f"chatcmpl-{secrets.token_hex(12)}",
            model=self._config.model_name,
            created_s=int(time.time()),
            indices={item.request_id: index for index, item in enumerate(requests)},
            tokenizer=self._builder.engine.tokenizer,
        )
        watcher = asyncio.create_task(_watch(receive, stream))
        try:
            if request.stream:
                await self._stream(stream, writer, send, includes_usage=request.includes_usage)
            else:
                await self._collect(stream, writer, send)
        finally:
            self._bridge.close(stream)
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _stream(
        self, stream: Stream, writer: ResponseWriter, send: Send, *, includes_usage: bool
    ) -> None:
        await self._send(send, _start(200, EVENT_STREAM, [(b"cache-control", b"no-cache")]))
        started: set[str] = set()
        usages: list[RequestUsage] = []
        while progress := await stream.take():
            chunks: list[bytes] = []
            for item in progress:
                if item.finish_reason is FinishReason.ERROR:
                    failed = errors.failed(item.failure).body()
                    await self._send(send, _body(event(failed), more=False))
                    return
                chunks.append(writer.chunk(item, is_first=item.request_id not in started))
                started.add(item.request_id)
                if item.usage is not None:
                    usages.append(item.usage)
            await self._send(send, _body(b"".join(chunks), more=True))
        if stream.is_disconnected:
            raise ClientGone
        end = (writer.usage_chunk(usages) if includes_usage else b"") + DONE
        await self._send(send, _body(end, more=False))

    async def _collect(self, stream: Stream, writer: ResponseWriter, send: Send) -> None:
        answers: dict[str, Progress] = {}
        while progress := await stream.take():
            for item in progress:
                earlier = answers.get(item.request_id)
                if earlier is not None:
                    item.text = earlier.text + item.text
                    item.logprobs = earlier.logprobs + item.logprobs
                answers[item.request_id] = item
        if stream.is_disconnected:
            raise ClientGone
        usages = [answer.usage for answer in answers.values() if answer.usage is not None]
        for answer in answers.values():
            if answer.finish_reason is FinishReason.ERROR:
                raise errors.failed(answer.failure)
        await _respond(send, writer.whole(list(answers.values()), usages))

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        """Send, or give the client up if its side of the connection stays full."""
        try:
            await asyncio.wait_for(send(message), self._config.send_timeout_s)
        except TimeoutError:
            raise ClientGone from None


async def _watch(receive: Receive, stream: Stream) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    stream.disconnect()


def _start(status: int, content_type: bytes, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", content_type), *headers],
    }


def _body(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _respond(
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    content_type: bytes = JSON,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(_start(status, content_type, [length, *(headers or [])]))
    await send(_body(body, more=False))
