"""Reading what an Anthropic-like server answers, streamed or whole.

Input counts come with `message_start`, output counts with `message_delta`, which may also
correct the former. An answer counts as finished once a stop reason came.
"""

from typing import Any

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.chat import Chunk
from providers.errors import ProtocolError, ProviderError
from providers.wires import failures, sums, tiers, usage
from providers.wires.sse import Event, Splitter
from providers.wires.usual import is_usual_anthropic
from providers.wires.whole import Body, read_as_stream

MALFORMED_MAX = 100
DIALECT = "anthropic"

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


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
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    id: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
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


_event = msgspec.json.Decoder(_Event).decode
_whole = msgspec.json.Decoder(_Whole).decode


class _Reader:
    """What streamed and whole answers have in common: usage and the finish."""

    def __init__(self) -> None:
        self.failure: ProviderError | None = None
        self.usage: CanonicalUsage | None = None
        self.prompt_usage: CanonicalUsage | None = None
        self.usage_problem = ""
        self.usage_extra: dict[str, Any] = {}
        self.finish_reason = ""
        self.upstream_id = ""
        self.served_tier = ""
        self.finished = False
        self._counts: dict[str, Any] = {}
        self._unreadable = ""

    def _merge_usage(self, counts: Any) -> None:
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
        speed = tiers.stated(self._counts.get("speed"))
        tier = tiers.stated(self._counts.get("service_tier"))
        self.served_tier = tier if speed in ("", tiers.STANDARD) else speed

    def _settle_usage(self) -> None:
        stated, problem = _canonical(self._counts)
        self.usage_problem = self._unreadable or problem
        if stated is None or self._unreadable:
            self.usage = None
            return
        self.usage = usage.larger(self.usage or self.prompt_usage, stated)
        self.usage_extra = usage.extra(self._counts)

    def _stop(self, reason: str | None) -> str:
        """The canonical finish reason; empty where there is none yet."""
        if not reason:
            return ""
        self.finish_reason = FINISH_REASONS.get(reason, "stop")
        self.finished = True
        return self.finish_reason


def _canonical(stated: dict[str, Any]) -> tuple[CanonicalUsage | None, str]:
    """The counts, or what is wrong with them."""
    try:
        return usage.from_anthropic(usage.counts_of(stated, usage.AnthropicUsage)), ""
    except usage.NoCounts:
        return None, ""
    except UsageError as problem:
        return None, str(problem)


class StreamReader(_Reader):
    def __init__(self) -> None:
        super().__init__()
        self._splitter = Splitter()
        self._malformed = 0
        self._tools: dict[int, int] = {}  # content block -> number of the tool call

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
            return read_as_stream(self, WholeReader(), self._splitter.tail)
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
            typed = _event(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._malformed += 1
            if self._malformed > MALFORMED_MAX:
                self.failure = ProtocolError(f"more than {MALFORMED_MAX} events are not JSON")
            return None
        chunk = Chunk(_shown(event), DIALECT)
        if typed.type == "content_block_delta":
            self._block_delta(typed, chunk)
        elif typed.type == "content_block_start":
            self._block_start(typed, chunk)
        elif typed.type == "message_start":
            self._message_start(typed)
        elif typed.type == "message_delta":
            self._message_delta(typed, chunk)
        elif typed.type == "message_stop":
            chunk.hidden = chunk.last = True
        elif typed.type == "error":
            self.failure = failures.in_stream(typed.error)
            return None
        return chunk

    def _message_start(self, event: _Event) -> None:
        if event.message is not None:
            self.upstream_id = event.message.id or ""
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
            chunk.finish_reason = self._stop(event.delta.stop_reason)
        chunk.hidden = True

    def _block_start(self, event: _Event, chunk: Chunk) -> None:
        block = event.content_block
        if block is None:
            return
        if block.type == "tool_use":
            number = self._tools.setdefault(event.index, len(self._tools))
            chunk.tool_calls = [_tool_call(number, block, arguments="")]
        chunk.text = block.text or ""
        chunk.reasoning = block.thinking or ""

    def _block_delta(self, event: _Event, chunk: Chunk) -> None:
        delta = event.delta
        if delta is None:
            return
        chunk.text = delta.text or ""
        chunk.reasoning = delta.thinking or ""
        number = self._tools.get(event.index)
        if delta.partial_json and number is not None:
            chunk.tool_calls = [{"index": number, "function": {"arguments": delta.partial_json}}]


class WholeReader(_Reader):
    """An answer in one JSON document; the chunk comes at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._body = Body()

    def feed(self, data: bytes) -> list[Chunk]:
        self.failure = self.failure or self._body.add(data)
        return []

    def end(self) -> list[Chunk]:
        if self.failure is not None:
            return []
        body = self._body.whole()
        try:
            answer = _whole(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            self.failure = ProtocolError(f"the answer is not a message: {wrong}")
            return []
        if answer.type == "error":
            self.failure = failures.in_stream(answer.error)
            return []
        self.upstream_id = answer.id or ""
        self._merge_usage(answer.usage)
        self._settle_usage()
        blocks = answer.content or []
        tools = [block for block in blocks if block.type == "tool_use"]
        return [
            Chunk(
                sums.without(body),
                DIALECT,
                text="".join(block.text or "" for block in blocks),
                reasoning="".join(block.thinking or "" for block in blocks),
                tool_calls=[
                    _tool_call(number, block, arguments=bytes(block.input).decode())
                    for number, block in enumerate(tools)
                ]
                or None,
                finish_reason=self._stop(answer.stop_reason),
                usage=self.usage,
            )
        ]


def _shown(event: Event) -> bytes:
    """The event as the caller may see it."""
    if is_usual_anthropic(event.data):
        return event.raw
    data = sums.without(event.data)
    if data is event.data:
        return event.raw
    return b"event: " + event.name + b"\ndata: " + data + b"\n\n"


def _tool_call(number: int, block: _Block, *, arguments: str) -> dict[str, Any]:
    return {
        "index": number,
        "id": block.id or f"call_{number}",
        "type": "function",
        "function": {"name": block.name or "", "arguments": arguments},
    }
