"""The upstream for machines without a C compiler: the same answers as mock.c, from asyncio.

    python -m bench.dataplane.mock.server PORT EVENTS INTERVAL_US

It costs some thirty times what the C program does; the harness shows whether it was the bottleneck.
"""

import asyncio
import json
import sys
from typing import Any

HEAD_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Answers:
    """Every answer, prepared once."""

    def __init__(self, events: int) -> None:
        usage = {
            "prompt_tokens": 42,
            "completion_tokens": events,
            "total_tokens": events + 42,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
        text = "The harbour is quiet at dawn, and the first boats leave before the fog has lifted."
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = _packed(_answer("chat.completion", [choice], usage))
        self.events = events
        served = {"id": "bench-model", "object": "model", "max_model_len": 32_768}
        self.models = _json_answer(_packed({"object": "list", "data": [served]}))
        self.whole = _json_answer(body)
        self.event = _chunk_of(_packed(_delta({"content": " harbour"}, None)))
        self.end = (
            _chunk_of(_packed(_delta({}, "stop")))
            + _chunk_of(_packed(_answer("chat.completion.chunk", [], usage)))
            + _chunk_of(b"[DONE]")
            + b"0\r\n\r\n"
        )


class Connection(asyncio.Protocol):
    def __init__(self, answers: Answers, interval_s: float) -> None:
        self._answers = answers
        self._interval_s = interval_s
        self._received = bytearray()
        self._left = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        _, found, rest = bytes(self._received[:end]).lower().partition(b"\r\ncontent-length:")
        expected = end + 4 + (int(rest.split(b"\r\n")[0]) if found else 0)
        if len(self._received) < expected or self._transport is None:
            return
        is_get, body = self._received.startswith(b"GET "), bytes(self._received[end + 4 : expected])
        self._received.clear()
        if is_get:
            self._transport.write(self._answers.models)
            return
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(self._answers.whole)
            return
        self._left = self._answers.events
        self._transport.write(HEAD_STREAM)
        asyncio.get_running_loop().call_later(self._interval_s, self._next)

    def _next(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._left == 0:
            self._transport.write(self._answers.end)
            return
        self._left -= 1
        self._transport.write(self._answers.event)
        asyncio.get_running_loop().call_later(self._interval_s, self._next)


def _answer(kind: str, choices: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-bench",
        "object": kind,
        "created": 1_700_000_000,
        "model": "bench-model",
        "system_fingerprint": "fp_bench",
        "choices": choices,
        "usage": usage,
    }


def _delta(delta: dict[str, str], finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _answer("chat.completion.chunk", [choice], None)


def _packed(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _json_answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def _chunk_of(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


async def serve(port: int, *, events: int, interval_us: int) -> None:
    answers = Answers(events)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answers, interval_us / 1e6), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), events=int(sys.argv[2]), interval_us=int(sys.argv[3])))
