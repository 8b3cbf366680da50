"""Reading what an OpenAI-like server answers, streamed or whole.

Every event is decoded into typed structs that hold only what is acted on; the bytes go on as
they came. What is not JSON is skipped, a bounded number of times. An answer counts as
finished once each choice gave its finish reason, with or without a `[DONE]` after it.
"""

from typing import Any

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.chat import Chunk
from providers.errors import ProtocolError, ProviderError, StreamBroken
from providers.wires import failures, sums, tiers, usage
from providers.wires.sse import Event, Splitter
from providers.wires.usual import is_usual_openai
from providers.wires.whole import Body, read_as_stream

MALFORMED_MAX = 100
DIALECT = "openai"

# What servers call a finish, in OpenAI's five words.
_FINISH = {"function_call": "tool_calls", "eos": "stop", "end_turn": "stop", "max_tokens": "length"}
_BROKEN = frozenset({"error", "abort"})


class _Delta(msgspec.Struct):
    """A delta of a stream or the message of a whole answer: the same fields."""

    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None  # what tool_calls were before


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    choices: list[_Choice] | None = None
    # Of any type: a vendor's nonsense here must not make its content unreadable.
    service_tier: Any = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_answer = msgspec.json.Decoder(_Answer).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_counts = msgspec.json.Decoder(usage.OpenAIUsage).decode


def _typed(text: bytes) -> usage.OpenAIUsage:
    """In one step where the counts are plain integers, as nearly all are."""
    try:
        return _counts(text)
    except msgspec.ValidationError:
        return usage.counts_of(msgspec.json.decode(text), usage.OpenAIUsage)


class _Reader:
    """What streamed and whole answers have in common: choices into chunks, and usage."""

    def __init__(self, rule: usage.Convention) -> None:
        self.failure: ProviderError | None = None
        self.usage: CanonicalUsage | None = None
        self.prompt_usage: CanonicalUsage | None = None  # this dialect counts at the end
        self.usage_problem = ""
        self.usage_extra: dict[str, Any] = {}
        self.finish_reason = ""
        self.upstream_id = ""
        self.served_tier = ""
        self.finished = False
        self._rule = rule
        self._finished: set[int] = set()

    def _chunks(self, answer: _Answer, raw: bytes) -> list[Chunk]:
        """One chunk per choice; the first carries the bytes of all."""
        chunks = []
        for choice in answer.choices or ():
            chunk = _chunk(choice, raw)
            if chunk.finish_reason:
                self._finish(chunk)
            chunks.append(chunk)
            raw = b""
        return chunks

    def _finish(self, chunk: Chunk) -> None:
        if chunk.finish_reason in _BROKEN:
            self.failure = StreamBroken(
                f"the upstream ended with finish_reason {chunk.finish_reason}",
                after_first_byte=True,
            )
            chunk.finish_reason = ""
            return
        self.finish_reason = chunk.finish_reason
        self._finished.add(chunk.index)

    def _read_usage(self, raw: msgspec.Raw) -> bool:
        """Take the counts in; True where there were any. A null usage is none."""
        text = bytes(raw)
        if text == b"null":
            return False
        try:
            stated = usage.from_openai(_typed(text), self._rule)
        except usage.NoCounts:
            return True
        except (UsageError, msgspec.MsgspecError) as problem:
            self.usage = None
            self.usage_problem = str(problem)
            return True
        self.usage, self.usage_problem = usage.larger(self.usage, stated), ""
        self.usage_extra = usage.extra(msgspec.json.decode(text))
        return True

    def _fail(self, raw: msgspec.Raw) -> bool:
        """Whether the upstream reported an error inside its answer."""
        text = bytes(raw)
        if text == b"null":
            return False
        self.failure = failures.in_stream(msgspec.json.decode(text))
        return True


class StreamReader(_Reader):
    """A streamed answer of so many choices."""

    def __init__(self, rule: usage.Convention, *, choices: int) -> None:
        super().__init__(rule)
        self._splitter = Splitter()
        self._choices = choices
        self._malformed = 0

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that are complete now; nothing once a failure is known."""
        if self.failure is not None:
            return []
        try:
            return self._read(self._splitter.feed(data))
        except ProtocolError as problem:
            self.failure = problem
            return []

    def _read(self, events: list[Event]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for event in events:
            if event.data:
                chunks += self._event(event.in_one_line())
            if self.failure is not None:
                break
        return chunks

    def _event(self, event: Event) -> list[Chunk]:
        if event.data == b"[DONE]":
            return [Chunk(event.raw, DIALECT, hidden=True, last=True)]
        try:
            answer = _answer(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._skip(event)
        if self._fail(answer.error):
            return []
        if event.name == b"error":
            self.failure = failures.in_stream(msgspec.json.decode(event.data))
            return []
        if answer.id and not self.upstream_id:
            self.upstream_id = answer.id
        if answer.service_tier is not None:
            self.served_tier = tiers.stated(answer.service_tier)
        has_usage = self._read_usage(answer.usage)
        data = event.data if is_usual_openai(event.data) else sums.without(event.data)
        raw = event.raw if data is event.data else _framed(data)
        if has_usage:
            if not answer.choices:
                return [Chunk(raw, DIALECT, usage=self.usage, hidden=True)]
            raw = _without_usage(data)
        chunks = self._chunks(answer, raw)
        if has_usage:
            chunks[0].usage = self.usage
        self.finished = len(self._finished) >= self._choices
        return chunks or [Chunk(raw, DIALECT)]

    def _skip(self, event: Event) -> list[Chunk]:
        self._malformed += 1
        if self._malformed > MALFORMED_MAX:
            self.failure = ProtocolError(f"more than {MALFORMED_MAX} events are not JSON")
        return []

    def end(self) -> list[Chunk]:
        """What was left when the connection closed; a body that is no stream is read whole."""
        if self.failure is not None:
            return []
        if self._splitter.tail.lstrip().startswith(b"{"):
            return read_as_stream(self, WholeReader(self._rule), self._splitter.tail)
        return self._read(self._splitter.end())


class WholeReader(_Reader):
    """An answer in one JSON document; chunks come at the end."""

    def __init__(self, rule: usage.Convention) -> None:
        super().__init__(rule)
        self._body = Body()

    def feed(self, data: bytes) -> list[Chunk]:
        self.failure = self.failure or self._body.add(data)
        return []

    def end(self) -> list[Chunk]:
        if self.failure is not None:
            return []
        body = self._body.whole()
        try:
            answer = _answer(body)
            self._read_usage(answer.usage)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            self.failure = ProtocolError(f"the answer is not a chat completion: {wrong}")
            return []
        if self._fail(answer.error):
            return []
        self.upstream_id = answer.id or ""
        self.served_tier = tiers.stated(answer.service_tier)
        chunks = self._chunks(answer, sums.without(body))
        if not chunks and self.failure is None:
            self.failure = ProtocolError("the answer has no choices")
        self.finished = bool(chunks) and len(self._finished) == len(chunks)
        if chunks:
            chunks[0].usage = self.usage
        return chunks


def _chunk(choice: _Choice, raw: bytes) -> Chunk:
    said = choice.delta or choice.message or _Delta()
    content = said.content
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content)
    reason = choice.finish_reason or ""
    calls = said.tool_calls
    if said.function_call and not calls:
        calls = [{"index": 0, "function": said.function_call}]
    return Chunk(
        raw,
        DIALECT,
        text=content or said.refusal or "",
        reasoning=said.reasoning_content or said.reasoning or "",
        tool_calls=calls or None,
        index=choice.index or 0,
        finish_reason=_FINISH.get(reason, reason),
    )


def _without_usage(data: bytes) -> bytes:
    """An event that carries usage beside content, without the usage: that is told at the end."""
    fields = _fields(data)
    fields.pop("usage", None)
    return _framed(msgspec.json.encode(fields))


def _framed(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
