"""The one conversation between what clients speak and what sellers' APIs speak. Pure.

A surface reads its dialect into it, a wire writes its own from it: N dialects and M wires need
N + M translations. What is hard to say is a need of the request (`ChatRequest.needs`), found by the
surface's scan; what only tunes is a Nuance, found here in what was read. Model, stream, limits and
tier are the request's: wires are told them with the offer. JSON that others wrote stays the bytes
that it is.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant"]
Mode = Literal["auto", "none", "required"]


class Nuance(StrEnum):
    """What only tunes an answer: a wire without words for it leaves it out, and that is told."""

    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    TOP_K = "top_k"
    SEED = "seed"
    PRESENCE_PENALTY = "presence_penalty"
    FREQUENCY_PENALTY = "frequency_penalty"
    STOP = "stop"
    USER = "user"
    EFFORT = "effort"
    THINKING = "thinking"
    SPEAKERS = "names of speakers"
    DETAIL = "detail of pictures"
    CACHE_MARKS = "cache marks"
    REASONING = "earlier reasoning"
    TOOL_ERRORS = "marks of failed tools"
    STRICT_TOOLS = "strict tools"


class Inline(msgspec.Struct, frozen=True):
    """A medium itself, in base64."""

    media_type: str
    data: str


class Address(msgspec.Struct, frozen=True):
    """Where whoever is sent it fetches a medium."""

    url: str


class Uploaded(msgspec.Struct, frozen=True):
    """A file that the caller gave the vendor before."""

    file_id: str


Source = Inline | Address | Uploaded


class CacheMark(msgspec.Struct, frozen=True):
    """The prompt up to here is worth keeping; `ttl` as vendors write it, empty for their usual."""

    ttl: str = ""


class Text(msgspec.Struct, frozen=True):
    """`refused`: the model's own words for why it will not answer."""

    text: str
    refused: bool = False
    cache: CacheMark | None = None


class Image(msgspec.Struct, frozen=True):
    source: Source
    detail: str = ""
    cache: CacheMark | None = None


class Audio(msgspec.Struct, frozen=True):
    """`format` is the vendor's short word, such as wav."""

    source: Source
    format: str = ""


class Document(msgspec.Struct, frozen=True):
    """A file; or one that is its text, or its parts, already."""

    content: "Source | str | tuple[Part, ...]"
    title: str = ""
    context: str = ""
    cited: bool = False
    cache: CacheMark | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """`arguments` is JSON as the model wrote it; free text where `is_free`. `signature` vouches for
    the thoughts that led to it, where a vendor ties them to the call."""

    id: str
    name: str
    arguments: str
    is_free: bool = False
    signature: str = ""
    cache: CacheMark | None = None


class ToolResult(msgspec.Struct, frozen=True):
    call_id: str
    content: "str | tuple[Part, ...]"
    is_error: bool = False
    cache: CacheMark | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """Earlier thoughts. `signature` proves them to the vendor that wrote them, `sealed` are those
    that it alone can read; `vendor` is its name where there is either."""

    text: str = ""
    signature: str = ""
    sealed: str = ""
    vendor: str = ""


class Other(msgspec.Struct, frozen=True):
    """A part that only the dialect which it came in has a word for."""

    kind: str
    raw: msgspec.Raw


Part = Text | Image | Audio | Document | ToolCall | ToolResult | Reasoning | Other


class Turn(msgspec.Struct, frozen=True):
    role: Role
    parts: tuple[Part, ...]
    speaker: str = ""


class Function(msgspec.Struct, frozen=True):
    """A tool that the caller runs and describes; `schema` None takes nothing."""

    name: str
    description: str = ""
    schema: msgspec.Raw | None = None
    strict: bool = False
    cache: CacheMark | None = None


class VendorTool(msgspec.Struct, frozen=True):
    """A tool that a vendor describes, and runs unless `run_by` is the caller."""

    kind: str
    raw: msgspec.Raw
    run_by: Literal["vendor", "caller"] = "vendor"


Tool = Function | VendorTool


class ToolChoice(msgspec.Struct, frozen=True):
    """`name` is the one tool that must be called; `allowed` names those that may be, if not all;
    `mode` None and `parallel` None leave it to the vendor."""

    mode: Mode | None = None
    name: str = ""
    allowed: tuple[str, ...] = ()
    parallel: bool | None = None


class Format(msgspec.Struct, frozen=True):
    """What an answer has to look like: JSON of this schema, or any object where it is None."""

    schema: msgspec.Raw | None
    name: str = ""
    strict: bool = False


class Sampling(msgspec.Struct, frozen=True):
    """None where the caller said nothing. Numbers stay as they were written."""

    temperature: int | float | None = None
    top_p: int | float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: int | float | None = None
    frequency_penalty: int | float | None = None


class Thinking(msgspec.Struct, frozen=True):
    """How the model is to think, as far as dialects have the same words for it."""

    mode: str = ""
    budget_tokens: int | None = None


class Conversation(msgspec.Struct, frozen=True):
    """`names` are the caller's own words for nuances; `unread` the fields that nothing here stands
    for, by the caller's words as well."""

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()
    format: Format | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    effort: str = ""
    thinking: Thinking | None = None
    user: str = ""
    names: Mapping[Nuance, str] = {}
    unread: frozenset[str] = frozenset()


def nuances(conversation: Conversation) -> set[Nuance]:
    """What there is in it that only tunes."""
    sampling = conversation.sampling
    found = {
        Nuance(name) for name in sampling.__struct_fields__ if getattr(sampling, name) is not None
    }
    if conversation.stop:
        found.add(Nuance.STOP)
    if conversation.user:
        found.add(Nuance.USER)
    if conversation.effort:
        found.add(Nuance.EFFORT)
    if conversation.thinking is not None:
        found.add(Nuance.THINKING)
    for tool in conversation.tools:
        found.update(_of_tool(tool))
    for turn in conversation.turns:
        if turn.speaker:
            found.add(Nuance.SPEAKERS)
        for part in turn.parts:
            found.update(_of_part(part))
    return found


def _of_tool(tool: Tool) -> Iterator[Nuance]:
    if isinstance(tool, Function):
        if tool.strict:
            yield Nuance.STRICT_TOOLS
        if tool.cache is not None:
            yield Nuance.CACHE_MARKS


def _of_part(part: Part) -> Iterator[Nuance]:
    if isinstance(part, Reasoning):
        yield Nuance.REASONING
        return
    if isinstance(part, Audio | Other):
        return
    if part.cache is not None:
        yield Nuance.CACHE_MARKS
    if isinstance(part, Image) and part.detail:
        yield Nuance.DETAIL
    elif isinstance(part, ToolResult):
        if part.is_error:
            yield Nuance.TOOL_ERRORS
        if not isinstance(part.content, str):
            for inner in part.content:
                yield from _of_part(inner)
    elif isinstance(part, Document) and isinstance(part.content, tuple):
        for inner in part.content:
            yield from _of_part(inner)
