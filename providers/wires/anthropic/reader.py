"""Reading what an Anthropic-like server answers, streamed or whole.

Input counts come with `message_start`, output counts with `message_delta`, which may also
correct the former. An answer counts as finished once a stop reason came.
"""

import json
from typing import Any

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.chat import CallDelta, Chunk, Dialect
from providers.errors import ProtocolError, ProviderError, StreamBroken
from providers.json_values import JsonObject, JsonValue
from providers.wires import (
    error_answers,
    finish_reasons,
    lenient_json,
    seller_costs,
    service_tiers,
    usage,
)
from providers.wires.exact_shapes import is_usual_anthropic
from providers.wires.sse import Event, Splitter
from providers.wires.unreadable import MALFORMED_MAX, is_heartbeat, unreadable, with_model_name
from providers.wires.whole_answers import Body, read_as_stream

DIALECT: Dialect = "anthropic"


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: Any = None


class _Message(msgspec.Struct):
    id: Any = None
    model: Any = None
    content: list[_Block] | None = None
    stop_reason: Any = None
    usage: Any = None  # of any type: nonsense here must not make the rest unreadable


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


class _Whole(_Message):
    type: str = ""
    error: Any = None


_event = msgspec.json.Decoder(_Event)
_whole = msgspec.json.Decoder(_Whole)
UNDECODED = frozenset({"input"})


class _Reader:
    """What streamed and whole answers have in common: usage and the finish."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._called = False  # a tool
        self.failure: ProviderError | None = None
        self.choices_missing = 0  # this dialect has one choice
        self.usage: CanonicalUsage | None = None
        self.prompt_usage: CanonicalUsage | None = None
        self.usage_problem = ""
        self.usage_extra: JsonObject = {}
        self.finish_reason = ""
        self.upstream_id = ""
        self.served_tier = ""
        self.finished = False
        self._counts: JsonObject = {}
        self._unreadable = ""

    def _merge_usage(self, counts: JsonValue) -> None:
        """Later counts are totals and replace earlier ones; a null replaces nothing."""
        if counts is None:
            return
        if not isinstance(counts, dict):
            self._unreadable = "the usage is no object"
            return
        for name, value in counts.items():
            if value is not None:
                self._counts[name] = value
        # A fast answer is charged at a multiple, whatever tier is named beside it.
        speed = service_tiers.stated(self._counts.get("speed"))
        tier = service_tiers.stated(self._counts.get("service_tier"))
        self.served_tier = tier if speed in ("", service_tiers.STANDARD) else speed

    def _settle_usage(self) -> None:
        stated, problem = _canonical(self._counts)
        self.usage_problem = self._unreadable or problem
        if stated is None or self._unreadable:
            self.usage = None
            return
        self.usage = usage.larger(self.usage or self.prompt_usage, stated)
        self.usage_extra = usage.extra(self._counts)

    def _stop(self, reason: Any) -> str:
        """The canonical finish reason; empty where there is none yet, or was one before."""
        word = finish_reasons.canonical(reason)
        if not word or self.finished:
            return ""
        if word in finish_reasons.BROKEN:
            self.failure = StreamBroken(
                f"the upstream ended with stop_reason {word}", after_first_byte=True
            )
            return ""
        if word not in finish_reasons.OPENAI_WORDS:
            word = finish_reasons.STOP
        if word == finish_reasons.STOP and self._called:
            word = finish_reasons.TOOL_CALLS
        self.finish_reason = word
        self.finished = True
        return word


def _canonical(stated: JsonObject) -> tuple[CanonicalUsage | None, str]:
    """The counts, or what is wrong with them."""
    try:
        return usage.from_anthropic(usage.counts_of(stated, usage.AnthropicUsage)), ""
    except usage.NoCounts:
        return None, ""
    except UsageError as problem:
        return None, str(problem)


class StreamReader(_Reader):
    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._splitter = Splitter()
        self._malformed = 0
        self._begun = False
        self._halves = lenient_json.Halves()
        self._tools: dict[int, int] = {}  # content block -> number of the tool call
        # What a call began with, until a piece of its input comes: some servers send all of it so,
        # and of a call without arguments nothing else comes.
        self._given: dict[int, str] = {}

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that are complete now; nothing once a failure is known."""
        if self.failure is not None:
            return []
        try:
            return self._read(self._splitter.feed(data))
        except ProtocolError as problem:
            self.failure = problem
            return []

    def end(self) -> list[Chunk]:
        """What was left when the connection closed; a body that is no stream is read whole."""
        if self.failure is not None:
            return []
        if self._splitter.tail.lstrip().startswith(b"{"):
            return read_as_stream(self, WholeReader(self._model), self._splitter.tail)
        return self._read(self._splitter.end())

    def _read(self, events: list[Event]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for event in events:
            if event.data:
                chunk = self._chunk(event.in_one_line())
                if chunk is not None:
                    chunks.append(chunk)
            if self.failure is not None:
                break
        return chunks

    def _chunk(self, event: Event) -> Chunk | None:
        try:
            typed = lenient_json.decode(event.data, _event, undecoded=UNDECODED)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._skip(event)
            return None
        chunk = Chunk(_shown(event), DIALECT)
        if typed.type == "content_block_delta":
            self._block_delta(typed, chunk)
        elif typed.type == "content_block_start":
            self._block_start(typed, chunk)
        elif typed.type == "message_start":
            self._message_start(typed, chunk)
        elif typed.type == "content_block_stop":
            chunk.tool_calls = self._inputs([typed.index])
            chunk.text = self._halves.joined((typed.index, "text"), "", last=True)
            chunk.reasoning = self._halves.joined((typed.index, "thinking"), "", last=True)
        elif typed.type == "message_delta":
            chunk.tool_calls = self._inputs(list(self._given))
            self._message_delta(typed, chunk)
        elif typed.type == "message_stop":
            chunk.hidden = chunk.last = True
        elif typed.type == "error":
            self.failure = error_answers.in_stream(typed.error)
            return None
        self._begun = self._begun or bool(chunk.text or chunk.reasoning or chunk.tool_calls)
        return chunk

    def _skip(self, event: Event) -> None:
        """What cannot be read says nothing before content has begun, or after the finish."""
        if is_heartbeat(event.data) or self.finished:
            return
        if self._begun:
            self.failure = unreadable()
            return
        self._malformed += 1
        if self._malformed > MALFORMED_MAX:
            self.failure = ProtocolError(f"more than {MALFORMED_MAX} events are not JSON")

    def _message_start(self, event: _Event, chunk: Chunk) -> None:
        if event.message is not None:
            self.upstream_id = str(event.message.id or "")
            chunk.raw = with_model_name(chunk.raw, event.message.model, self._model)
            counts = event.message.usage
            if isinstance(counts, dict):
                # The output count of this event is a placeholder, not a count.
                counts = {**counts, "output_tokens": None}
            self._merge_usage(counts)
            if self._counts:
                self.prompt_usage, _ = _canonical({**self._counts, "output_tokens": 0})

    def _message_delta(self, event: _Event, chunk: Chunk) -> None:
        self._merge_usage(event.usage)
        self._settle_usage()
        chunk.usage = self.usage
        if event.delta is not None:
            reason = event.delta.stop_reason
            chunk.finish_reason = self._stop(reason)
            own = finish_reasons.anthropic_word(reason, chunk.finish_reason)
            if own != reason:
                chunk.raw = _with_stop_reason(chunk.raw, own)
        chunk.hidden = True

    def _block_start(self, event: _Event, chunk: Chunk) -> None:
        block = event.content_block
        if block is None:
            return
        if block.type == "tool_use":
            self._called = True
            number = self._tools.setdefault(event.index, len(self._tools))
            chunk.tool_calls = [_tool_call(number, block, arguments="")]
            self._given[event.index] = _arguments(block)
        chunk.text = block.text or ""
        chunk.reasoning = block.thinking or ""

    def _block_delta(self, event: _Event, chunk: Chunk) -> None:
        delta = event.delta
        if delta is None:
            return
        chunk.text = self._halves.joined((event.index, "text"), delta.text or "")
        chunk.reasoning = self._halves.joined((event.index, "thinking"), delta.thinking or "")
        number = self._tools.get(event.index)
        if delta.partial_json and number is not None:
            self._given.pop(event.index, None)
            chunk.tool_calls = [{"index": number, "function": {"arguments": delta.partial_json}}]

    def _inputs(self, blocks: list[int]) -> list[CallDelta] | None:
        """The inputs of those of these blocks whose calls got none in pieces."""
        calls: list[CallDelta] = [
            {"index": self._tools[block], "function": {"arguments": self._given.pop(block)}}
            for block in blocks
            if block in self._given
        ]
        return calls or None


class WholeReader(_Reader):
    """An answer in one JSON document; the chunk comes at the end."""

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._body = Body()

    def feed(self, data: bytes) -> list[Chunk]:
        self.failure = self.failure or self._body.add(data)
        return []

    def end(self) -> list[Chunk]:
        if self.failure is not None:
            return []
        body = self._body.whole()
        try:
            answer = lenient_json.decode(body, _whole, undecoded=UNDECODED)
        except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
            self.failure = ProtocolError(f"the answer is not a message: {wrong}")
            return []
        if answer.type == "error":
            self.failure = error_answers.in_stream(answer.error)
            return []
        self.upstream_id = str(answer.id or "")
        self._merge_usage(answer.usage)
        self._settle_usage()
        blocks = answer.content or []
        tools = [block for block in blocks if block.type == "tool_use"]
        self._called = bool(tools)
        finish_reason = self._stop(answer.stop_reason)
        return [
            Chunk(
                self._shown(body, answer, finish_reason),
                DIALECT,
                text="".join(block.text or "" for block in blocks),
                reasoning="".join(block.thinking or "" for block in blocks),
                tool_calls=[
                    _tool_call(number, block, arguments=_arguments(block))
                    for number, block in enumerate(tools)
                ]
                or None,
                finish_reason=finish_reason,
                usage=self.usage,
            )
        ]

    def _shown(self, body: bytes, answer: _Whole, finish_reason: str) -> bytes:
        """The document as the caller may see it."""
        shown = with_model_name(seller_costs.without(body), answer.model, self._model)
        own = finish_reasons.anthropic_word(answer.stop_reason, finish_reason)
        if own == answer.stop_reason:
            return shown
        return msgspec.json.encode({**lenient_json.fields(shown), "stop_reason": own})


def _with_stop_reason(raw: bytes, reason: Any) -> bytes:
    head, _, data = raw.partition(b"data:")
    document = json.loads(data)
    document["delta"]["stop_reason"] = reason
    return head + b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def _shown(event: Event) -> bytes:
    """The event as the caller may see it."""
    if is_usual_anthropic(event.data):
        return event.raw
    data = seller_costs.without(event.data)
    if data is event.data:
        return event.raw
    return b"event: " + event.name + b"\ndata: " + data + b"\n\n"


def _arguments(block: _Block) -> str:
    """A call's input as JSON text; some servers give the text itself, or nothing."""
    raw = bytes(block.input).decode()
    if raw.startswith('"'):
        raw = str(msgspec.json.decode(raw)).strip()
    return raw if raw.startswith("{") else "{}"


def _tool_call(number: int, block: _Block, *, arguments: str) -> CallDelta:
    return {
        "index": number,
        "id": block.id or f"call_{number}",
        "type": "function",
        "function": {"name": block.name or "", "arguments": arguments},
    }
