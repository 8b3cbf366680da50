"""Writing an answer as Anthropic Messages.

Events of an upstream that speaks this dialect go out as they came, but for the closing
`message_delta`, which is held back until its usage can carry the cost. Answers of another
dialect become content blocks: one opens when its first delta comes and closes when another
begins. Blocks cannot interleave, so a second tool call waits until the first is complete.
"""

import json
from typing import Any

import msgspec

from gateway.dataplane.surfaces import sse, usage_block
from gateway.dataplane.surfaces.openai_writer import join_tool_calls
from gateway.routing import bounds
from providers.chat import ChatRequest, Chunk, Receipt
from providers.wires import finish_reasons, lenient_json


class _EventHead(msgspec.Struct):
    type: str = ""
    index: int = 0


_event_head = msgspec.json.Decoder(_EventHead).decode


class AnthropicWriter:
    """One answer."""

    def __init__(self, request: ChatRequest, *, request_id: str) -> None:
        self.content_type = sse.CONTENT_TYPE if request.stream else b"application/json"
        self._id = f"msg_{request_id}"
        self.model = request.model
        self._input_expected = bounds.input_expected(request)
        self._stops = _stops_of(request)
        self._stop_sequence: str | None = None
        self._started = False
        self._stopped = False  # the upstream's own message_delta was seen and is held
        self._delta: dict[str, Any] = {}
        self._finish_reason = ""
        self._blocks = 0
        self._open = ""  # "text", "thinking" or "tool_use": the block that is open
        self._tool_index = -1
        self._waiting: list[Chunk] = []  # deltas of tool calls after the first
        self._passed = b""  # the last event that went out as it came

    def chunk(self, chunk: Chunk) -> bytes:
        """The events for the client; empty where there is nothing to show yet."""
        if chunk.finish_reason:
            self._finish_reason = chunk.finish_reason
            self._stop_sequence = self._known_stop(chunk)
        if chunk.dialect == "anthropic":
            return self._pass(chunk)
        if chunk.hidden or chunk.index:
            return b""
        out = b"" if self._started else self._start()
        if chunk.reasoning:
            out += self._delta_of(
                "thinking",
                {"type": "thinking", "thinking": "", "signature": ""},
                {"type": "thinking_delta", "thinking": chunk.reasoning},
            )
        if chunk.text:
            out += self._delta_of(
                "text", {"type": "text", "text": ""}, {"type": "text_delta", "text": chunk.text}
            )
        if chunk.tool_calls:
            out += self._tool_deltas(chunk.tool_calls)
        return out

    def _known_stop(self, chunk: Chunk) -> str | None:
        """The caller's own sequence that ended the answer, if it was one of them."""
        return chunk.stop_sequence if chunk.stop_sequence in self._stops else None

    def _pass(self, chunk: Chunk) -> bytes:
        if not chunk.hidden:
            self._started = True
            self._passed = chunk.raw
            return chunk.raw
        if chunk.finish_reason:
            self._stopped = True
            data = chunk.raw.partition(b"data:")[2]
            self._delta = dict(lenient_json.fields(data))
        return b""

    def _start(self) -> bytes:
        self._started = True
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # The true counts come with the closing message_delta.
            "usage": {"input_tokens": self._input_expected, "output_tokens": 0},
        }
        return sse.event("message_start", {"type": "message_start", "message": message})

    def _delta_of(self, kind: str, block: dict[str, Any], delta: dict[str, Any]) -> bytes:
        out = b""
        if self._open != kind:
            out = self._close() + self._begin(kind, block)
        return out + self._event("content_block_delta", delta=delta)

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        self._open = kind
        self._blocks += 1
        return self._event("content_block_start", content_block=block)

    def _event(self, name: str, **fields: Any) -> bytes:
        return sse.event(name, {"type": name, "index": self._blocks - 1, **fields})

    def _close(self) -> bytes:
        """End the open block; tool calls that waited for it follow as whole blocks."""
        if not self._open:
            return b""
        out = self._event("content_block_stop")
        self._open = ""
        waiting, self._waiting = self._waiting, []
        for call in join_tool_calls(waiting):
            out += self._begin("tool_use", _tool_block(call, self._blocks))
            out += self._event(
                "content_block_delta", delta=_json_delta(call["function"]["arguments"])
            )
            out += self._event("content_block_stop")
            self._open = ""
        return out

    def _tool_deltas(self, deltas: list[dict[str, Any]]) -> bytes:
        out = b""
        for delta in deltas:
            index = delta.get("index", 0)
            if self._open == "tool_use" and index != self._tool_index:
                self._waiting.append(Chunk(b"", tool_calls=[delta]))
                continue
            if self._open != "tool_use":
                out += self._close()
                self._tool_index = index
                out += self._begin("tool_use", _tool_block(delta, self._blocks))
            arguments = (delta.get("function") or {}).get("arguments")
            if arguments:
                out += self._event("content_block_delta", delta=_json_delta(arguments))
        return out

    def end(self, receipt: Receipt) -> bytes:
        """Close what is open, then stop reason and usage with cost, then the terminator."""
        out = b"" if self._started else self._start()
        finish_reason = self._finish_reason
        if not self._stopped:
            out += self._close()
            if receipt.stopped_by and not finish_reason:
                out += _end_of_block(self._passed)
                finish_reason = "length"
        return out + self._closing(receipt, finish_reason) + _stop()

    def _closing(self, receipt: Receipt, finish_reason: str) -> bytes:
        delta = dict(self._delta)
        if not self._stopped:
            delta["delta"] = _ending(finish_reason, self._stop_sequence)
        delta["type"] = "message_delta"
        delta["usage"] = usage_block.anthropic_usage(receipt)
        delta.update(usage_block.own_fields(receipt))
        return sse.event("message_delta", delta)

    def error(self, *, status: int, code: str, message: str, receipt: Receipt | None) -> bytes:
        """An error inside a 200 answer; SDKs raise on it, so what was billed is told in it."""
        error: dict[str, Any] = {"type": "api_error", "message": message, "code": code}
        document: dict[str, Any] = {"type": "error", "error": error}
        if receipt is not None:
            document["usage"] = usage_block.anthropic_usage(receipt)
        return sse.event("error", document)

    def whole(self, chunks: list[Chunk], receipt: Receipt) -> bytes:
        """The complete answer: the upstream's own body with our usage, or one made of chunks."""
        if chunks and chunks[0].dialect == "anthropic":
            body: dict[str, Any] = dict(lenient_json.fields(chunks[0].raw))
        else:
            body = self._body(chunks, receipt)
        body["usage"] = usage_block.anthropic_usage(receipt)
        body.update(usage_block.own_fields(receipt))
        return lenient_json.encode(body)

    def _body(self, chunks: list[Chunk], receipt: Receipt) -> dict[str, Any]:
        first = [chunk for chunk in chunks if chunk.index == 0]
        finishes = [chunk for chunk in first if chunk.finish_reason]
        ending: dict[str, str | None] = {"stop_reason": None, "stop_sequence": None}
        if finishes:
            last = finishes[-1]
            ending = _ending(last.finish_reason, self._known_stop(last))
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": receipt.model or self.model,
            "content": _content(first),
            **ending,
        }


def _stops_of(request: ChatRequest) -> frozenset[str]:
    raw = request.fields.get("stop_sequences")
    return frozenset(msgspec.json.decode(raw) or () if raw is not None else ())


def _ending(finish_reason: str, stop_sequence: str | None) -> dict[str, str | None]:
    reason = finish_reasons.TO_ANTHROPIC.get(finish_reason, "end_turn")
    if stop_sequence is not None and finish_reason == "stop":
        reason = "stop_sequence"
    else:
        stop_sequence = None
    return {"stop_reason": reason, "stop_sequence": stop_sequence}


def _stop() -> bytes:
    return sse.event("message_stop", {"type": "message_stop"})


def _json_delta(arguments: str) -> dict[str, str]:
    return {"type": "input_json_delta", "partial_json": arguments}


def _tool_block(call: dict[str, Any], number: int) -> dict[str, Any]:
    """The opening of a tool call; some servers give their calls no id."""
    name = (call.get("function") or {}).get("name") or ""
    return {
        "type": "tool_use",
        "id": call.get("id") or f"toolu_{number}",
        "name": name,
        "input": {},
    }


def _end_of_block(passed: bytes) -> bytes:
    """Closes the block that a passed stream left open, if its last event lay in one."""
    if not passed:
        return b""
    event = _event_head(passed.partition(b"data:")[2])
    if event.type not in ("content_block_start", "content_block_delta"):
        return b""
    ending = {"type": "content_block_stop", "index": event.index}
    return sse.event("content_block_stop", ending)


def _content(chunks: list[Chunk]) -> list[dict[str, Any]]:
    """Content blocks of a whole answer, in the order in which Anthropic gives them."""
    content: list[dict[str, Any]] = []
    reasoning = "".join(chunk.reasoning for chunk in chunks)
    if reasoning:
        content.append({"type": "thinking", "thinking": reasoning, "signature": ""})
    text = "".join(chunk.text for chunk in chunks)
    if text:
        content.append({"type": "text", "text": text})
    for number, call in enumerate(join_tool_calls(chunks)):
        block = _tool_block(call, number)
        block["input"] = _input(call["function"]["arguments"])
        content.append(block)
    return content


def _input(arguments: str) -> Any:
    """A tool's arguments as an object; what the model wrote is kept where it is not one."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": arguments}
