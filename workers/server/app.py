"""The worker's HTTP API: a plain ASGI callable that checks the secret and finds who answers."""

import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypedDict

from workers.config import ENGINE_VERSION
from workers.server import errors, tokens
from workers.server.bodies import Health, ModelList, ServedModel
from workers.server.bridge import EngineBridge
from workers.server.call_builder import CallBuilder
from workers.server.chat_request import ChatRequest
from workers.server.embeddings import Embedder
from workers.server.generation import Generator
from workers.server.http_exchange import JSON, ClientGone, Exchange, Headers, Receive, Send
from workers.server.recent_calls import RecentCalls
from workers.server.request_fields import AnyCall, decode
from workers.server.responses import encode
from workers.server.text_request import CompletionRequest, EmbeddingRequest

CALLS = "/v1/calls/"

Read = Callable[[], Awaitable[tuple[bytes, bytes]]]
Answer = Callable[[AnyCall, int, Exchange], Awaitable[None]]


class _Typed(TypedDict):
    type: str


class Scope(_Typed, total=False):
    """What ASGI says of a connection; only one of HTTP has the rest."""

    method: str
    path: str
    headers: Headers


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
        self._recent = RecentCalls()
        generator = Generator(bridge, builder, config.model_name, self._recent)
        embedder = Embedder(bridge, builder, config.model_name)
        counter = tokens.TokenCounter(builder)
        self._open_paths: dict[str, Read] = {"/health": self._health}
        self._get_paths: dict[str, Read] = {"/v1/models": self._models, "/metrics": self._metrics}
        self._post_paths: dict[str, tuple[type[AnyCall], Answer]] = {
            "/v1/chat/completions": (ChatRequest, generator.answer),
            "/v1/completions": (CompletionRequest, generator.answer),
            "/v1/embeddings": (EmbeddingRequest, embedder.answer),
            "/tokenize": (tokens.TokenizeRequest, counter.tokenize),
            "/v1/counts": (tokens.CountRequest, counter.count),
            "/detokenize": (tokens.DetokenizeRequest, counter.detokenize),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        exchange = Exchange(
            receive, send, send_timeout_s=self._config.send_timeout_s, call_id=call_id
        )
        try:
            await self._answer(scope, exchange)
        except errors.ApiError as error:
            await exchange.respond(encode(error.body()), status=error.status, headers=error.headers)
        except ClientGone:
            return

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        path, method = scope["path"], scope["method"]
        if path not in self._open_paths:
            self._authorise(scope)
        reads = self._open_paths | self._get_paths
        if path in reads and method == "GET":
            body, content_type = await reads[path]()
            await exchange.respond(body, content_type=content_type, headers=[])
        elif path.startswith(CALLS) and method == "GET":
            body = await self._recent.read(path.removeprefix(CALLS))
            await exchange.respond(body, headers=[])
        elif path in self._post_paths and method == "POST":
            kind, answer = self._post_paths[path]
            body = await exchange.read_body(self._config.max_body_bytes)
            call = decode(body, kind)
            self._check_model(call)
            await answer(call, len(body), exchange)
        elif path in self._post_paths or path in reads:
            raise errors.MethodNotAllowed(f"{method} is not offered", code="method_not_allowed")
        else:
            raise errors.NotFound(f"There is no {path} here", code="not_found")

    def _authorise(self, scope: Scope) -> None:
        if not self._config.bearer:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + self._config.bearer.encode()):
            raise errors.Unauthorized("The bearer secret is wrong", code="invalid_api_key")

    def _check_model(self, call: AnyCall) -> None:
        if call.model not in (None, self._config.model_name):
            raise errors.NotFound(
                f"This worker serves {self._config.model_name}, not {str(call.model)[:100]}",
                code="model_not_found",
                param="model",
            )

    async def _health(self) -> tuple[bytes, bytes]:
        if not self._bridge.is_alive:
            raise errors.EngineFailed("The engine has stopped", code="engine_stopped")
        return encode(Health(model=self._config.model_name, version=ENGINE_VERSION)), JSON

    async def _models(self) -> tuple[bytes, bytes]:
        model = ServedModel(
            id=self._config.model_name,
            created=self._config.created_s,
            max_model_len=self._builder.engine.context_length,
        )
        return encode(ModelList(data=[model])), JSON

    async def _metrics(self) -> tuple[bytes, bytes]:
        await self._bridge.load_now()
        return self._builder.engine.metrics.render(), b"text/plain; version=0.0.4"
