"""A provider on loopback that misbehaves on request: the model's name says how.

Runs an event loop in a thread of its own and speaks plain HTTP/1.1 over real sockets. `seen` is
the provider's own log of what it was asked and how each call ended.
"""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.patience import PATIENCE_S

TOKENS = ["The", " quick", " brown", " fox", " jumps"]
INPUT_TOKENS = 10
CACHED_TOKENS = 4
USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": len(TOKENS),
    "total_tokens": INPUT_TOKENS + len(TOKENS),
    "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
BIG = "x" * 16_384
WAITING_MAX = 1_000


@dataclass
class Seen:
    """One call as the provider saw it."""

    model: str
    body: dict[str, Any]
    headers: dict[str, str]
    # The port of the caller's end, which tells its processes apart.
    port: int
    sent: int = 0
    hung_up: bool = False
    done: bool = False
    path: str = ""


@dataclass
class Exchange:
    """What a behaviour works with."""

    seen: Seen
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    nth: int

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, document: Any, **headers: str) -> None:
        body = json.dumps(document).encode() if not isinstance(document, bytes) else document
        extra = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\n{extra}"
        await self.raw(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def event(self, document: Any) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        await self.chunk(b"data: " + data + b"\n\n")
        self.seen.sent += 1

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def token(self, text: str) -> None:
        await self.event(_delta({"content": text}))

    def reset(self) -> None:
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def _usage_chunk() -> dict[str, Any]:
    return {**_delta({}), "choices": [], "usage": USAGE}


async def good(call: Exchange) -> None:
    if not call.seen.body.get("stream"):
        message = {"role": "assistant", "content": "".join(TOKENS)}
        await call.answer(
            200,
            {
                "id": "chatcmpl-fake",
                "object": "chat.completion",
                "created": 1,
                "model": "fake",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": USAGE,
            },
        )
        return
    await call.raw(STREAM_HEAD)
    await call.event(_delta({"role": "assistant", "content": ""}))
    for text in TOKENS:
        await call.token(text)
    await call.event(_delta({}, "stop"))
    await call.event(_usage_chunk())
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


async def other_tier(call: Exchange) -> None:
    """A good stream that says it was served at a tier nobody asked for."""
    await call.raw(STREAM_HEAD)
    for text in TOKENS:
        await call.event({**_delta({"content": text}), "service_tier": "priority"})
    await call.event({**_delta({}, "stop"), "service_tier": "priority"})
    await call.event({**_usage_chunk(), "service_tier": "priority"})
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


async def _start(call: Exchange, tokens: int) -> None:
    await call.raw(STREAM_HEAD)
    await call.event(_delta({"role": "assistant", "content": ""}))
    for text in TOKENS[:tokens]:
        await call.token(text)


async def until_hung_up(call: Exchange) -> None:
    if not await call.reader.read(1):
        call.seen.hung_up = True


def _error(message: str, **more: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", **more}}


async def rate_limited_later(call: Exchange) -> None:
    await call.answer(429, _error("slow down"), retry_after="7")


async def rate_limited(call: Exchange) -> None:
    await call.answer(429, _error("slow down"))


async def fails_once(call: Exchange) -> None:
    await (call.answer(500, _error("oops")) if call.nth == 1 else good(call))


async def unavailable(call: Exchange) -> None:
    await call.answer(503, _error("down for a while"))


async def resets(call: Exchange) -> None:
    call.reset()


async def silent(call: Exchange) -> None:
    await until_hung_up(call)


async def slow_start(call: Exchange) -> None:
    await asyncio.sleep(0.5)
    await good(call)


async def cut(call: Exchange) -> None:
    await _start(call, 3)
    await asyncio.sleep(0.1)
    call.reset()


async def cut_before_content(call: Exchange) -> None:
    await _start(call, 0)
    await asyncio.sleep(0.1)
    call.reset()


async def ends_early(call: Exchange) -> None:
    await _start(call, 3)
    await asyncio.sleep(0.1)
    await call.raw(b"0\r\n\r\n")


async def stalls(call: Exchange) -> None:
    await _start(call, 3)
    await until_hung_up(call)


async def bad_chunk(call: Exchange) -> None:
    await _start(call, 2)
    await asyncio.sleep(0.1)
    await call.event(b'{"choices": [{"delta": {"content": "bro')
    for text in TOKENS[2:]:
        await call.token(text)
    await call.event(_delta({}, "stop"))
    await call.event(_usage_chunk())
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


async def no_done(call: Exchange) -> None:
    await _start(call, len(TOKENS))
    await call.event(_delta({}, "stop"))
    await call.event(_usage_chunk())
    call.reset() if call.nth % 2 else await call.raw(b"0\r\n\r\n")


async def context_too_long(call: Exchange) -> None:
    await call.answer(
        400,
        {
            "error": {
                "message": "This model's maximum context length is 8192 tokens.",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
    )


async def filtered(call: Exchange) -> None:
    await call.answer(400, _error("The prompt was filtered.", code="content_filter"))


async def bad_credential(call: Exchange) -> None:
    await call.answer(401, _error("Incorrect API key provided."))


async def refuses_slowly(call: Exchange) -> None:
    """Says no at once, and takes its time over the words."""
    await call.raw(b"HTTP/1.1 500 Said\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n")
    call.seen.sent += 1
    await asyncio.sleep(0.5)
    await call.raw(b"boom")


async def redirects(call: Exchange) -> None:
    await call.answer(307, b"", location="http://169.254.169.254/latest/")


async def error_in_stream(call: Exchange) -> None:
    await _start(call, 2)
    await asyncio.sleep(0.1)
    await call.event(_error("the engine crashed"))
    await call.raw(b"0\r\n\r\n")


async def trickles(call: Exchange) -> None:
    """A token every 50 ms for six seconds, unless the gateway hangs up before."""
    try:
        await _trickle(call, 120)
    except (ConnectionError, asyncio.CancelledError):
        call.seen.hung_up = True
        raise


async def trickles_on(call: Exchange) -> None:
    """A token every 50 ms until the gateway hangs up."""
    await call.raw(STREAM_HEAD)
    try:
        while True:
            await call.token(TOKENS[0])
            await asyncio.sleep(0.05)
    except (ConnectionError, asyncio.CancelledError):
        call.seen.hung_up = True
        raise


async def short_trickle(call: Exchange) -> None:
    """Twenty tokens over a second."""
    await _trickle(call, 20)


async def two_second_trickle(call: Exchange) -> None:
    """Forty tokens over two seconds."""
    await _trickle(call, 40)


async def _trickle(call: Exchange, tokens: int) -> None:
    await call.raw(STREAM_HEAD)
    for number in range(tokens):
        await call.token(TOKENS[number % len(TOKENS)])
        await asyncio.sleep(0.05)
    await _end_trickle(call, tokens)


async def _end_trickle(call: Exchange, tokens: int) -> None:
    await call.event(_delta({}, "stop"))
    usage = {**USAGE, "completion_tokens": tokens, "total_tokens": INPUT_TOKENS + tokens}
    await call.event({**_delta({}), "choices": [], "usage": usage})
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


async def floods(call: Exchange) -> None:
    """As fast as the gateway takes it, without end."""
    await call.raw(STREAM_HEAD)
    try:
        while True:
            await call.token(BIG)
    except (ConnectionError, asyncio.CancelledError):
        call.seen.hung_up = True
        raise


async def too_many_tokens(call: Exchange) -> None:
    """Reports far more than it was allowed to make."""
    await call.raw(STREAM_HEAD)
    await call.token("word")
    await call.event(_delta({}, "stop"))
    usage = {"prompt_tokens": 10, "completion_tokens": 100_000, "total_tokens": 100_010}
    await call.event({**_delta({}), "choices": [], "usage": usage})
    await call.event(b"[DONE]")
    await call.raw(b"0\r\n\r\n")


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class FakeUpstream:
    """The server. `behaviours` maps a model name to what it does; others behave well."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    connections: int = 0

    def __post_init__(self) -> None:
        self._waiting = ThreadPoolExecutor(WAITING_MAX)

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE_S)

    def stop(self) -> None:
        self.gate.set()
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_S)
        self._waiting.shutdown()

    def calls(self, model: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.model == model]

    async def _opened(self) -> None:
        """However many wait, and for as long as the test likes."""
        await asyncio.get_running_loop().run_in_executor(self._waiting, self.gate.wait)

    async def gated(self, call: Exchange) -> None:
        """Answers once the test has opened the gate."""
        await self._opened()
        await good(call)

    async def after_first_token(self, call: Exchange) -> None:
        """Says nothing after its first token until the test has opened the gate."""
        await _start(call, 1)
        await self._opened()
        for text in TOKENS[1:]:
            await call.token(text)
        await call.event(_delta({}, "stop"))
        await call.event(_usage_chunk())
        await call.event(b"[DONE]")
        await call.raw(b"0\r\n\r\n")

    async def trickles_in_two(self, call: Exchange) -> None:
        """Two tokens, and eighteen over a second once the test has opened the gate."""
        await call.raw(STREAM_HEAD)
        for number in range(20):
            if number == 2:
                await self._opened()
            await call.token(TOKENS[number % len(TOKENS)])
            await asyncio.sleep(0.05)
        await _end_trickle(call, 20)

    async def trickles_until_released(self, call: Exchange) -> None:
        """A token every 50 ms until the test opens the gate."""
        await call.raw(STREAM_HEAD)
        tokens = 0
        while not self.gate.is_set():
            await call.token(TOKENS[tokens % len(TOKENS)])
            tokens += 1
            await asyncio.sleep(0.05)
        await _end_trickle(call, tokens)

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await self._stopping.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await self._call(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = [line.partition(":") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value.strip() for name, _, value in lines}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        port = writer.get_extra_info("peername")[1]
        seen = Seen(body.get("model", ""), body, headers, port, path=head.split(" ", 2)[1])
        self.seen.append(seen)
        nth = len(self.calls(seen.model))
        behaviour = self.behaviours.get(seen.model, good)
        try:
            await behaviour(Exchange(seen, writer, reader, nth))
        except ConnectionError:
            seen.hung_up = True
            raise
        seen.done = True
        if seen.hung_up or writer.is_closing():
            raise ConnectionResetError
