"""Reading what an OpenAI-like server answers, streamed or whole.

Every event is decoded into typed structs that hold only what is acted on; the bytes go on as
they came. What cannot be read is skipped, a bounded number of times, until content has begun: from
then on it may have been content, and is a cut. An answer is finished once each choice gave its
finish reason, with or without a `[DONE]` after it; where fewer choices came than were asked for, or
one was left open, only with an orderly end.
"""

import json
from typing import Any

import msgspec

from billing.usage import CanonicalUsage, UsageError
from providers.chat import NO_CHOICE, CallDelta, Chunk, Dialect
from providers.errors import ProtocolError, ProviderError, StreamBroken
from providers.json_values import JsonObject
from providers.wires import (
    error_answers,
    finish_reasons,
    lenient_json,
    seller_costs,
    service_tiers,
    usage,
)
from providers.wires.exact_shapes import is_usual_openai, plain_openai
from providers.wires.openai import tool_calls
from providers.wires.openai.deltas import Choice, Delta, spoken
from providers.wires.openai.rewriting import (
    framed,
    in_own_words,
    is_foreign,
    is_renumbered,
    with_calls,
    without_usage,
)
from providers.wires.openai.tool_calls import Numbering
from providers.wires.sse import Event, Splitter
from providers.wires.unreadable import MALFORMED_MAX, is_heartbeat, unreadable, with_model_name
from providers.wires.whole_answers import Body, read_as_stream

DIALECT: Dialect = "openai"
UNDECODED = frozenset({"usage", "error"})
# A server whose events are not plain so many times is not taken for one whose events are.
ODD_MAX = 8


class _Answer(msgspec.Struct):
    choices: list[Choice] | None = None
    # Of any type: a vendor's nonsense here must not make its content unreadable.
    id: Any = None
    object: Any = None
    model: Any = None
    service_tier: Any = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


_answer = msgspec.json.Decoder(_Answer)
_counts = msgspec.json.Decoder(usage.OpenAIUsage).decode


def _typed(text: bytes) -> usage.OpenAIUsage:
    """In one step where the counts are plain integers, as nearly all are."""
    try:
        return _counts(text)
    except msgspec.ValidationError:
        return usage.counts_of(msgspec.json.decode(text), usage.OpenAIUsage)


class _Reader:
    """What streamed and whole answers have in common: choices into chunks, and usage."""

    def __init__(self, rule: usage.Convention, *, choices: int, model: str) -> None:
        self.failure: ProviderError | None = None
        self.usage: CanonicalUsage | None = None
        self.prompt_usage: CanonicalUsage | None = None  # this dialect counts at the end
        self.usage_problem = ""
        self.usage_extra: JsonObject = {}
        self.finish_reason = ""
        self.upstream_id = ""
        self.served_tier = ""
        self.finished = False
        self._rule = rule
        self._asked = choices
        self._model = model
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._called: set[int] = set()  # choices that hold a tool call
        self._halves = lenient_json.Halves()
        self._begun = False
        self._numbering: dict[int, Numbering] = {}
        self._foreign = False  # whether a finish reason is in no word of this dialect
        self._said: Any = None  # what the server calls its model
        self._is_path = False

    @property
    def choices_missing(self) -> int:
        return max(0, self._asked - len(self._finished)) if self.finished else 0

    def _chunks(self, answer: _Answer, data: bytes, raw: bytes) -> list[Chunk]:
        """One chunk per choice; the first carries the bytes of all."""
        choices = answer.choices
        if not choices:
            return []
        is_event = raw is not data
        chunks = [self._chunk(choice, at) for at, choice in enumerate(choices)]
        if self._foreign:
            self._foreign = False
            raw = in_own_words(data, is_event=is_event)
        if any(chunk.tool_calls for chunk in chunks):
            renumbered = map(is_renumbered, choices, chunks)
            if any(renumbered):
                raw = with_calls(raw, chunks, is_event=is_event)
        if answer.model != self._said:
            self._said = answer.model
            self._is_path = isinstance(self._said, str) and error_answers.is_internal(self._said)
        if self._is_path:
            raw = with_model_name(raw, self._said, self._model)
        chunks[0].raw = raw
        if self._finished and all(self._is_afterword(chunk) for chunk in chunks):
            # What follows a finish, such as usage beside an empty delta, does not reopen it.
            for chunk in chunks:
                chunk.hidden = True
        for chunk in chunks:
            if chunk.finish_reason:
                self._finished.add(chunk.index)
        return chunks

    def _is_afterword(self, chunk: Chunk) -> bool:
        is_empty = not (chunk.text or chunk.reasoning or chunk.tool_calls)
        return is_empty and chunk.index in self._finished

    def _chunk(self, choice: Choice, at: int) -> Chunk:
        index = choice.index
        if type(index) is not int:
            index = at if index is None else int(index)
        self._seen.add(index)
        text, reasoning, calls = spoken(choice.delta or choice.message or Delta(choice.text))
        reason = choice.finish_reason
        if self._halves.open or not (text.isascii() and reasoning.isascii()):
            text = self._halves.joined((index, "text"), text, last=bool(reason))
            reasoning = self._halves.joined((index, "reasoning"), reasoning, last=bool(reason))
        if calls:
            self._called.add(index)
            calls = self._numbered(choice, index, calls)
        if reason and index in self._numbering:
            calls = [*(calls or ()), *self._numbering[index].unsaid()] or None
        chunk = Chunk(b"", DIALECT, text, reasoning, calls, index)
        if text or reasoning or calls:
            self._begun = True
        if reason and index not in self._finished:
            chunk.stop_sequence = _text_of(choice.stop_reason) or _text_of(choice.matched_stop)
            self._finish(chunk, reason)
        return chunk

    def _numbered(self, choice: Choice, index: int, calls: list[CallDelta]) -> list[CallDelta]:
        """Those of a whole answer by their place, those of a stream by what each says."""
        if choice.delta is None:
            return tool_calls.in_order(calls)
        return self._numbering.setdefault(index, Numbering()).renumbered(calls)

    def _finish(self, chunk: Chunk, reason: Any) -> None:
        word = finish_reasons.canonical(reason)
        if not word:
            return
        self._foreign = self._foreign or is_foreign(reason)
        if word in finish_reasons.BROKEN:
            self.failure = StreamBroken(
                f"the upstream ended with finish_reason {word}", after_first_byte=True
            )
            return
        if word == finish_reasons.STOP and chunk.index in self._called:
            word = finish_reasons.TOOL_CALLS
        self.finish_reason = chunk.finish_reason = word

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
        self.failure = error_answers.in_stream(json.loads(text))
        return True


class StreamReader(_Reader):
    """A streamed answer of so many choices."""

    def __init__(self, rule: usage.Convention, *, choices: int, model: str = "") -> None:
        super().__init__(rule, choices=choices, model=model)
        self._splitter = Splitter()
        self._malformed = 0
        self._odd = 0

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
                chunks += self._plain(event) or self._event(event.in_one_line())
            if self.failure is not None:
                break
        return chunks

    def _plain(self, event: Event) -> list[Chunk] | None:
        """The chunk of an event that is text and nothing else; None where all must be looked at."""
        if self._odd > ODD_MAX or event.name or b"\n" in event.data or self._halves.open:
            return None
        plain = plain_openai(event.data)
        if plain is None:
            self._odd += 1
            return None
        [choice] = plain.choices
        text = choice.delta.content or ""
        reasoning = choice.delta.reasoning_content or choice.delta.reasoning or ""
        is_known = plain.model == self._said and not self._is_path
        if not (text or reasoning) or not is_known or choice.index in self._finished:
            return None
        self._odd, self._begun = 0, True
        self._seen.add(choice.index)
        self.upstream_id = self.upstream_id or plain.id
        if plain.service_tier is not None:
            self.served_tier = service_tiers.stated(plain.service_tier)
        return [Chunk(event.raw, DIALECT, text, reasoning, None, choice.index)]

    def _event(self, event: Event) -> list[Chunk]:
        if event.data.strip() == b"[DONE]":
            # Whatever was left open is not going to be finished.
            self.finished = bool(self._finished)
            return [Chunk(event.raw, DIALECT, hidden=True, last=True)]
        try:
            answer = lenient_json.decode(event.data, _answer, undecoded=UNDECODED)
            if self._is_failure(answer, event):
                return []
            return self._answered(answer, event)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self._skip(event)

    def _is_failure(self, answer: _Answer, event: Event) -> bool:
        if self._fail(answer.error):
            return True
        if event.name == b"error" or answer.object == "error":
            self.failure = error_answers.in_stream(json.loads(event.data))
        return self.failure is not None

    def _answered(self, answer: _Answer, event: Event) -> list[Chunk]:
        if isinstance(answer.id, str) and not self.upstream_id:
            self.upstream_id = answer.id
        if answer.service_tier is not None:
            self.served_tier = service_tiers.stated(answer.service_tier)
        has_usage = self._read_usage(answer.usage)
        data = event.data if is_usual_openai(event.data) else seller_costs.without(event.data)
        raw = event.raw if data is event.data else framed(data)
        if has_usage:
            if not answer.choices:
                return [Chunk(raw, DIALECT, usage=self.usage, hidden=True)]
            data = without_usage(data)
            raw = framed(data)
        chunks = self._chunks(answer, data, raw)
        if has_usage:
            chunks[0].usage = self.usage
        if self._finished and len(self._finished) >= self._asked and self._seen <= self._finished:
            self.finished = True
        return chunks or [Chunk(raw, DIALECT, index=NO_CHOICE)]

    def _skip(self, event: Event) -> list[Chunk]:
        """What cannot be read says nothing before content has begun, or after the finish."""
        if is_heartbeat(event.data) or self.finished:
            return []
        if self._begun:
            self.failure = unreadable()
            return []
        self._malformed += 1
        if self._malformed > MALFORMED_MAX:
            self.failure = ProtocolError(f"more than {MALFORMED_MAX} events are not JSON")
        return []

    def end(self) -> list[Chunk]:
        """What was left when the connection closed; a body that is no stream is read whole."""
        if self.failure is not None:
            return []
        if self._splitter.tail.lstrip().startswith(b"{"):
            whole = WholeReader(self._rule, choices=self._asked, model=self._model)
            chunks = read_as_stream(self, whole, self._splitter.tail)
            self._finished = whole._finished
            return chunks
        chunks = self._read(self._splitter.end())
        if self._finished and self._seen <= self._finished:
            self.finished = True
        return chunks


class WholeReader(_Reader):
    """An answer in one JSON document; chunks come at the end."""

    def __init__(self, rule: usage.Convention, *, choices: int = 1, model: str = "") -> None:
        super().__init__(rule, choices=choices, model=model)
        self._body = Body()

    def feed(self, data: bytes) -> list[Chunk]:
        self.failure = self.failure or self._body.add(data)
        return []

    def end(self) -> list[Chunk]:
        if self.failure is not None:
            return []
        body = self._body.whole()
        try:
            answer = lenient_json.decode(body, _answer, undecoded=UNDECODED)
            self._read_usage(answer.usage)
            if self._fail(answer.error):
                return []
            shown = body if is_usual_openai(body) else seller_costs.without(body)
            chunks = self._chunks(answer, shown, shown)
        except (msgspec.DecodeError, ValueError, RecursionError) as wrong:
            self.failure = ProtocolError(f"the answer is not a chat completion: {wrong}")
            return []
        self.upstream_id = answer.id if isinstance(answer.id, str) else ""
        self.served_tier = service_tiers.stated(answer.service_tier)
        if not chunks and self.failure is None:
            self.failure = ProtocolError("the answer has no choices")
        self.finished = bool(self._finished)
        if chunks:
            chunks[0].usage = self.usage
        return chunks


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""
