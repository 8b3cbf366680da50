"""Writing an answer as Anthropic Messages.

Events of an upstream that speaks this dialect go out as they came, but for the closing
`message_delta`, which is held back until its usage can carry the cost. Answers of another
dialect become content blocks: one opens when its first delta comes and closes when another
begins. Blocks cannot interleave, so a second tool call waits until the first is complete.
"""

import json

import msgspec
from msgspec import UNSET

from gateway.dataplane.surfaces import anthropic_events as events
from gateway.dataplane.surfaces import sse, usage_block
from gateway.dataplane.surfaces.openai_writer import join_tool_calls
from gateway.routing import bounds
from providers.chat import CallDelta, ChatRequest, Chunk, Receipt
from providers.json_values import JsonObject
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
        self._delta: dict[str, msgspec.Raw] = {}
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
            delta = events.ThinkingDelta("thinking_delta", chunk.reasoning)
            out += self._delta_of(events.THINKING, delta)
        if chunk.text:
            out += self._delta_of(events.TEXT, events.Text("text_delta", chunk.text))
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
            self._delta = lenient_json.fields(data)
        return b""

    def _start(self) -> bytes:
        self._started = True
        # The true counts come with the closing message_delta.
        usage = events.InputUsage(self._input_expected, 0)
        message = events.Message(
            self._id, "message", "assistant", self.model, [], None, None, usage=usage
        )
        return sse.event("message_start", events.MessageStart("message_start", message))

    def _delta_of(self, opening: events.Block, delta: events.Piece) -> bytes:
        if self._open == opening.type:
            return self._piece(delta)
        return self._close() + self._begin(opening) + self._piece(delta)

    def _begin(self, block: events.Block) -> bytes:
        self._open = block.type
        self._blocks += 1
        name = "content_block_start"
        return sse.event(name, events.BlockEvent(name, self._blocks - 1, block))

    def _piece(self, delta: events.Piece) -> bytes:
        name = "content_block_delta"
        return sse.event(name, events.BlockEvent(name, self._blocks - 1, UNSET, delta))

    def _end_block(self) -> bytes:
        name = "content_block_stop"
        return sse.event(name, events.BlockEvent(name, self._blocks - 1))

    def _close(self) -> bytes:
        """End the open block; tool calls that waited for it follow as whole blocks."""
        if not self._open:
            return b""
        out = self._end_block()
        self._open = ""
        waiting, self._waiting = self._waiting, []
        for call in join_tool_calls(waiting):
            block = _tool_block(call.id, call.function.name, self._blocks)
            out += self._begin(block)
            out += self._piece(_json_delta(call.function.arguments))
            out += self._end_block()
            self._open = ""
        return out

    def _tool_deltas(self, deltas: list[CallDelta]) -> bytes:
        out = b""
        for delta in deltas:
            index, called = delta.get("index", 0), delta.get("function") or {}
            if self._open == "tool_use" and index != self._tool_index:
                self._waiting.append(Chunk(b"", tool_calls=[delta]))
                continue
            if self._open != "tool_use":
                out += self._close()
                self._tool_index = index
                name = called.get("name") or ""
                block = _tool_block(delta.get("id") or "", name, self._blocks)
                out += self._begin(block)
            if arguments := called.get("arguments"):
                out += self._piece(_json_delta(arguments))
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
        delta: usage_block.Written = dict(self._delta)
        if not self._stopped:
            delta["delta"] = _ending(finish_reason, self._stop_sequence)
        delta["type"] = "message_delta"
        delta["usage"] = usage_block.anthropic_usage(receipt)
        delta.update(usage_block.own_fields(receipt))
        return sse.event("message_delta", delta)

    def error(self, *, status: int, code: str, message: str, receipt: Receipt | None) -> bytes:
        """An error inside a 200 answer; SDKs raise on it, so what was billed is told in it."""
        usage = UNSET if receipt is None else usage_block.anthropic_usage(receipt)
        error = events.Error("api_error", message, code)
        return sse.event("error", events.ErrorEvent("error", error, usage))

    def whole(self, chunks: list[Chunk], receipt: Receipt) -> bytes:
        """The complete answer: the upstream's own body with our usage, or one made of chunks."""
        if chunks and chunks[0].dialect == "anthropic":
            body: usage_block.Written = dict(lenient_json.fields(chunks[0].raw))
            body["usage"] = usage_block.anthropic_usage(receipt)
            body.update(usage_block.own_fields(receipt))
            return lenient_json.encode(body)
        return lenient_json.encode(self._message(chunks, receipt))

    def _message(self, chunks: list[Chunk], receipt: Receipt) -> events.Message:
        first = [chunk for chunk in chunks if chunk.index == 0]
        finishes = [chunk for chunk in first if chunk.finish_reason]
        ending = events.Ending()
        if finishes:
            last = finishes[-1]
            ending = _ending(last.finish_reason, self._known_stop(last))
        return events.Message(
            self._id,
            "message",
            "assistant",
            receipt.model or self.model,
            _content(first),
            ending.stop_reason,
            ending.stop_sequence,
            usage_block.anthropic_usage(receipt),
            usage_block.own_part(receipt) or UNSET,
        )


def _stops_of(request: ChatRequest) -> frozenset[str]:
    raw = request.fields.get("stop_sequences")
    return frozenset(msgspec.json.decode(raw) or () if raw is not None else ())


def _ending(finish_reason: str, stop_sequence: str | None) -> events.Ending:
    reason = finish_reasons.TO_ANTHROPIC.get(finish_reason, "end_turn")
    if stop_sequence is not None and finish_reason == "stop":
        reason = "stop_sequence"
    else:
        stop_sequence = None
    return events.Ending(reason, stop_sequence)


def _stop() -> bytes:
    return sse.event("message_stop", events.Bare("message_stop"))


def _json_delta(arguments: str) -> events.JsonDelta:
    return events.JsonDelta("input_json_delta", arguments)


def _tool_block(identity: str, name: str, number: int) -> events.ToolUse:
    """The opening of a tool call; some servers give their calls no id."""
    return events.ToolUse("tool_use", identity or f"toolu_{number}", name, {})


def _end_of_block(passed: bytes) -> bytes:
    """Closes the block that a passed stream left open, if its last event lay in one."""
    if not passed:
        return b""
    event = _event_head(passed.partition(b"data:")[2])
    if event.type not in ("content_block_start", "content_block_delta"):
        return b""
    return sse.event("content_block_stop", events.BlockEvent("content_block_stop", event.index))


def _content(chunks: list[Chunk]) -> list[events.Block]:
    """Content blocks of a whole answer, in the order in which Anthropic gives them."""
    content: list[events.Block] = []
    reasoning = "".join(chunk.reasoning for chunk in chunks)
    if reasoning:
        content.append(events.Thinking("thinking", reasoning))
    text = "".join(chunk.text for chunk in chunks)
    if text:
        content.append(events.Text("text", text))
    for number, call in enumerate(join_tool_calls(chunks)):
        block = _tool_block(call.id, call.function.name, number)
        block.input = _input(call.function.arguments)
        content.append(block)
    return content


def _input(arguments: str) -> JsonObject:
    """A tool's arguments as an object; what the model wrote is kept where it is not one."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": arguments}
