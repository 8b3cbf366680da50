"""Writing an answer as OpenAI Chat Completions.

Events of an upstream that speaks this dialect go out as they came, but for usage and the
terminator: those are written once, at the end, with the cost. Events of another dialect are
written anew. An error after the first byte is an error event, never a silent end.
"""

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dataplane.surfaces import sse, usage_block
from providers.chat import NO_CHOICE, CallDelta, ChatRequest, Chunk, Receipt
from providers.wires import lenient_json


class _Delta(msgspec.Struct, gc=False):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[CallDelta] | UnsetType = UNSET

    @property
    def is_empty(self) -> bool:
        return self.content is UNSET and self.reasoning is UNSET and self.tool_calls is UNSET


class _Choice(msgspec.Struct, gc=False):
    index: int
    delta: _Delta
    logprobs: None
    finish_reason: str | None


class _Message(msgspec.Struct):
    role: str
    content: str | None
    refusal: None = None
    reasoning: str | UnsetType = UNSET
    tool_calls: "list[ToolCall] | UnsetType" = UNSET


class _WholeChoice(msgspec.Struct):
    index: int
    message: _Message
    logprobs: None
    finish_reason: str | None


class CalledFunction(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class ToolCall(msgspec.Struct, kw_only=True):
    """A whole one, put together from deltas."""

    id: str = ""
    type: str = "function"
    function: CalledFunction


class _Error(msgspec.Struct):
    message: str
    type: str
    code: str
    status: int


class _Event(msgspec.Struct, gc=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[_Choice] | list[_WholeChoice]
    usage: usage_block.Written | UnsetType = UNSET
    tokenhouse: usage_block.Own | UnsetType = UNSET
    error: _Error | UnsetType = UNSET


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
        if delta.is_empty and not chunk.finish_reason:
            return b""
        if chunk.index not in self._open and chunk.index not in self._ended:
            delta.role, delta.content = "assistant", delta.content or ""
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
            choices = [_choice(index, _Delta(), "length") for index in sorted(self._open)]
            ended = sse.data(self._event(choices))
        return ended + self._usage_event(receipt) + sse.DONE

    def _usage_event(self, receipt: Receipt) -> bytes:
        """What is left to be told; nothing where the caller said that it wants no usage."""
        event = self._event([])
        event.tokenhouse = usage_block.own_part(receipt) or UNSET
        if self._include_usage:
            event.usage = usage_block.openai_usage(receipt)
        elif event.tokenhouse is UNSET:
            return b""
        return sse.data(event)

    def error(self, *, status: int, code: str, message: str, receipt: Receipt | None) -> bytes:
        """An error inside a 200 answer: what was billed first, then the error, then the end."""
        choices = [_choice(index, _Delta(), "error") for index in sorted(self._open) or [0]]
        event = self._event(choices)
        event.error = _Error(message, "api_error", code, status)
        usage = self._usage_event(receipt) if receipt is not None else b""
        return usage + sse.data(event) + sse.DONE

    def _event(self, choices: list[_Choice]) -> _Event:
        return _Event(self._id, "chat.completion.chunk", self._created, self.model, choices)

    def whole(self, chunks: list[Chunk], receipt: Receipt) -> bytes:
        """The complete answer: the upstream's own body with our usage, or one made of chunks."""
        if chunks and chunks[0].dialect == "openai":
            body: usage_block.Written = dict(lenient_json.fields(chunks[0].raw))
            body["usage"] = usage_block.openai_usage(receipt)
            body.update(usage_block.own_fields(receipt))
            return lenient_json.encode(body)
        model = receipt.model or self.model
        answer = _Event(self._id, "chat.completion", self._created, model, _choices(chunks))
        answer.usage = usage_block.openai_usage(receipt)
        answer.tokenhouse = usage_block.own_part(receipt) or UNSET
        return lenient_json.encode(answer)


def _delta(chunk: Chunk) -> _Delta:
    return _Delta(
        content=chunk.text or UNSET,
        reasoning=chunk.reasoning or UNSET,
        tool_calls=chunk.tool_calls or UNSET,
    )


def _choice(index: int, delta: _Delta, finish_reason: str) -> _Choice:
    return _Choice(index, delta, None, finish_reason or None)


def _choices(chunks: list[Chunk]) -> list[_WholeChoice]:
    """The choices of a whole answer, put together from the chunks of another dialect."""
    choices = []
    for index in sorted({chunk.index for chunk in chunks}):
        own = [chunk for chunk in chunks if chunk.index == index]
        message = _Message(
            "assistant",
            "".join(chunk.text for chunk in own) or None,
            reasoning="".join(chunk.reasoning for chunk in own) or UNSET,
            tool_calls=join_tool_calls(own) or UNSET,
        )
        reasons = [chunk.finish_reason for chunk in own if chunk.finish_reason]
        choices.append(_WholeChoice(index, message, None, reasons[-1] if reasons else None))
    return choices


def join_tool_calls(chunks: list[Chunk]) -> list[ToolCall]:
    """Whole tool calls out of deltas: arguments joined by the index of their call."""
    calls: dict[int, ToolCall] = {}
    for chunk in chunks:
        for delta in chunk.tool_calls or ():
            index = delta.get("index", len(calls))
            call = calls.setdefault(index, ToolCall(function=CalledFunction()))
            call.id = delta.get("id") or call.id
            function = delta.get("function") or {}
            call.function.name = function.get("name") or call.function.name
            call.function.arguments += function.get("arguments") or ""
    return [calls[index] for index in sorted(calls)]
