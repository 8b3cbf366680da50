"""Writing an answer as OpenAI Chat Completions.

Events of an upstream that speaks this dialect go out as they came, but for usage and the
terminator: those are written once, at the end, with the cost. Events of another dialect are
written anew. An error after the first byte is an error event, never a silent end.
"""

from typing import Any

import msgspec

from gateway.dataplane.surfaces import sse, usage_block
from providers.chat import NO_CHOICE, ChatRequest, Chunk, Receipt
from providers.wires import lenient_json


class _Head(msgspec.Struct):
    id: str | None = None
    created: int | None = None
    model: str | None = None


_head = msgspec.json.Decoder(_Head).decode


class OpenAIWriter:
    """One answer. Keeps the upstream's id, so that every event of a stream carries the same."""

    def __init__(self, request: ChatRequest, *, request_id: str, created_s: int) -> None:
        self.content_type = sse.CONTENT_TYPE if request.stream else b"application/json"
        self._id = f"chatcmpl-{request_id}"
        self._created = created_s
        self.model = request.model
        self._include_usage = request.include_usage
        self._started = False
        self._open: set[int] = set()  # choices that got a role and no finish reason yet
        self._ended: set[int] = set()

    def chunk(self, chunk: Chunk) -> bytes:
        """The event for the client; empty where it is not shown."""
        if chunk.dialect == "openai":
            if chunk.hidden:
                return b""
            if not self._started:
                self._adopt(chunk.raw)
            self._note(chunk)
            return chunk.raw
        delta = _delta(chunk)
        if not delta and not chunk.finish_reason:
            return b""
        if chunk.index not in self._open and chunk.index not in self._ended:
            delta = {"role": "assistant", "content": "", **delta}
        self._started = True
        self._note(chunk)
        return sse.data(self._event([_choice(chunk.index, delta, chunk.finish_reason)]))

    def _note(self, chunk: Chunk) -> None:
        """What follows a choice's finish does not reopen it."""
        if chunk.finish_reason:
            self._ended.add(chunk.index)
            self._open.discard(chunk.index)
        elif chunk.index != NO_CHOICE and chunk.index not in self._ended:
            self._open.add(chunk.index)

    def _adopt(self, raw: bytes) -> None:
        self._started = True
        try:
            head = _head(raw.partition(b"data:")[2])
        except msgspec.MsgspecError:
            return
        self._id = head.id or self._id
        self._created = head.created or self._created
        self.model = head.model or self.model

    def end(self, receipt: Receipt) -> bytes:
        """The usage event, with cost and explanation, and the terminator. Choices that we ended
        ourselves have reached their limit."""
        ended = b""
        if self._open:
            choices = [_choice(index, {}, "length") for index in sorted(self._open)]
            ended = sse.data(self._event(choices))
        return ended + self._usage_event(receipt) + sse.DONE

    def _usage_event(self, receipt: Receipt) -> bytes:
        """What is left to be told; nothing where the caller said that it wants no usage."""
        event = self._event([])
        ours = usage_block.own_fields(receipt)
        if self._include_usage:
            event["usage"] = usage_block.openai_usage(receipt)
        elif not ours:
            return b""
        event.update(ours)
        return sse.data(event)

    def error(self, *, status: int, code: str, message: str, receipt: Receipt | None) -> bytes:
        """An error inside a 200 answer: what was billed first, then the error, then the end."""
        choices = [_choice(index, {}, "error") for index in sorted(self._open) or [0]]
        event = self._event(choices)
        event["error"] = {"message": message, "type": "api_error", "code": code, "status": status}
        usage = self._usage_event(receipt) if receipt is not None else b""
        return usage + sse.data(event) + sse.DONE

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.model,
            "choices": choices,
        }

    def whole(self, chunks: list[Chunk], receipt: Receipt) -> bytes:
        """The complete answer: the upstream's own body with our usage, or one made of chunks."""
        if chunks and chunks[0].dialect == "openai":
            body: dict[str, Any] = dict(lenient_json.fields(chunks[0].raw))
        else:
            body = self._event(_choices(chunks))
            body.update(object="chat.completion", model=receipt.model or self.model)
        body["usage"] = usage_block.openai_usage(receipt)
        body.update(usage_block.own_fields(receipt))
        return lenient_json.encode(body)


def _delta(chunk: Chunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.text:
        delta["content"] = chunk.text
    if chunk.reasoning:
        delta["reasoning"] = chunk.reasoning
    if chunk.tool_calls:
        delta["tool_calls"] = chunk.tool_calls
    return delta


def _choice(index: int, delta: dict[str, Any], finish_reason: str) -> dict[str, Any]:
    return {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": finish_reason or None,
    }


def _choices(chunks: list[Chunk]) -> list[dict[str, Any]]:
    """The choices of a whole answer, put together from the chunks of another dialect."""
    choices = []
    for index in sorted({chunk.index for chunk in chunks}):
        own = [chunk for chunk in chunks if chunk.index == index]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(chunk.text for chunk in own) or None,
            "refusal": None,
        }
        reasoning = "".join(chunk.reasoning for chunk in own)
        if reasoning:
            message["reasoning"] = reasoning
        calls = join_tool_calls(own)
        if calls:
            message["tool_calls"] = calls
        reasons = [chunk.finish_reason for chunk in own if chunk.finish_reason]
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": None,
                "finish_reason": reasons[-1] if reasons else None,
            }
        )
    return choices


def join_tool_calls(chunks: list[Chunk]) -> list[dict[str, Any]]:
    """Whole tool calls out of deltas: arguments joined by the index of their call."""
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for delta in chunk.tool_calls or ():
            index = delta.get("index", len(calls))
            call = calls.setdefault(
                index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            )
            call["id"] = delta.get("id") or call["id"]
            function = delta.get("function") or {}
            call["function"]["name"] = function.get("name") or call["function"]["name"]
            call["function"]["arguments"] += function.get("arguments") or ""
    return [calls[index] for index in sorted(calls)]
