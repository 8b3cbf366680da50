"""A Messages request as the conversation that it is.

Asked for only where a seller's wire is another than this dialect; the surface has checked what it
acts on, what else is wrong in shape shows here.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gateway.dataplane.surfaces.reading import anthropic_shapes as shapes
from gateway.dataplane.surfaces.reading.shapes import Shape, cache_mark, given, left, said
from providers.conversation import (
    Address,
    Conversation,
    Document,
    Format,
    Function,
    Image,
    Inline,
    Mode,
    Nuance,
    Other,
    Part,
    Reasoning,
    Sampling,
    Source,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
    Uploaded,
    VendorTool,
)
from providers.errors import CannotSay
from providers.wires import body_fields

Raw = msgspec.Raw

NAMES: Final[Mapping[Nuance, str]] = {
    **{nuance: nuance.value for nuance in Nuance},
    Nuance.STOP: "stop_sequences",
    Nuance.USER: "metadata.user_id",
    Nuance.EFFORT: "output_config.effort",
    Nuance.CACHE_MARKS: "cache_control",
    Nuance.REASONING: "messages.thinking",
    Nuance.TOOL_ERRORS: "tool_result.is_error",
    Nuance.STRICT_TOOLS: "tools.strict",
}
VENDOR: Final = "anthropic"
# Tools that Anthropic describes and the caller runs.
CLIENT_TOOLS: Final = ("bash_", "text_editor_", "memory_", "computer_")
_MODES: Final[Mapping[str, Mode]] = {"auto": "auto", "none": "none", "any": "required"}

_list = msgspec.json.Decoder(list[Raw] | None).decode
_content = msgspec.json.Decoder(str | list[Raw] | None).decode
_kind = msgspec.json.Decoder(shapes.Kind).decode
_tool_kind = msgspec.json.Decoder(shapes.ToolKind).decode
_encode = msgspec.json.Encoder().encode

_SETTINGS: Final = frozenset(shapes.Settings.__struct_fields__)
_READ: Final = _SETTINGS | {"messages", "system", "tools"} | body_fields.OURS | body_fields.DECIDED
_NULL: Final = b"null"
_CUSTOM: Final = "custom"


def read(fields: Mapping[str, Raw]) -> Conversation:
    """The whole request but for what the wire decides. CannotSay where it has no such shape."""
    unread = set(left(fields, _READ))
    written = _encode({name: value for name, value in fields.items() if name in _SETTINGS})
    asked = shapes.SETTINGS.read(written, unread)
    system = tuple(_parts(_content(fields.get("system", _NULL)) or (), unread))
    turns = [Turn("system", system)] if system else []
    turns += [_turn(raw, unread) for raw in _list(fields["messages"]) or ()]
    tools = tuple(_read_tool(raw, unread) for raw in _list(fields.get("tools", _NULL)) or ())
    output = shapes.OutputConfig()
    if given(asked.output_config):
        output = shapes.OUTPUT_CONFIG.read(asked.output_config, unread)
    return Conversation(
        turns=tuple(turns),
        tools=tools,
        choice=_read_choice(asked.tool_choice, unread) if tools else ToolChoice(),
        format=_read_format(output.format, unread),
        sampling=Sampling(asked.temperature, asked.top_p, asked.top_k),
        stop=tuple(asked.stop_sequences or ()),
        effort=output.effort or "",
        thinking=_read_thinking(asked.thinking, unread),
        user=_read_user(asked.metadata, unread),
        names=NAMES,
        unread=frozenset(unread),
    )


def _turn(raw: Raw, unread: set[str]) -> Turn:
    message = shapes.MESSAGE.read(raw, unread)
    return Turn(message.role, tuple(_parts(message.content, unread)))


def _parts(content: str | list[Raw] | tuple[()], unread: set[str]) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    return [_part(raw, unread) for raw in content]


def _part(raw: Raw, unread: set[str]) -> Part:
    kind = _kind(raw).type
    read_as = _PARTS.get(kind)
    return Other(kind, raw) if read_as is None else read_as(raw, unread)


def _text(raw: Raw, unread: set[str]) -> Part:
    block = shapes.TEXT.read(raw, unread)
    if said(block.citations) is not None:
        unread.add("text.citations")
    return Text(block.text, cache=cache_mark(block.cache_control, unread))


def _image(raw: Raw, unread: set[str]) -> Part:
    block, source = _media(shapes.IMAGE, raw, unread)
    return Image(_source(source, "an image", unread), cache=cache_mark(block.cache_control, unread))


def _document(raw: Raw, unread: set[str]) -> Part:
    block, source = _media(shapes.DOCUMENT, raw, unread)
    content: Source | str | tuple[Part, ...]
    if source.type == "text":
        content = source.data or ""
    elif source.type == "content":
        content = tuple(_parts(source.content or (), unread))
    else:
        content = _source(source, "a document", unread)
    return Document(
        content,
        block.title or "",
        block.context or "",
        given(block.citations) and shapes.CITATIONS.read(block.citations, unread).enabled,
        cache_mark(block.cache_control, unread),
    )


def _media(
    shape: "Shape[shapes.Media]", raw: Raw, unread: set[str]
) -> tuple[shapes.Media, shapes.Source]:
    block = shape.read(raw, unread)
    return block, shapes.SOURCE.read(block.source, unread)


def _source(source: shapes.Source, what: str, unread: set[str]) -> Source:
    if source.type == "base64":
        return Inline(source.media_type or "", source.data or "")
    if source.type == "url":
        return Address(source.url or "")
    if source.type == "file":
        return Uploaded(source.file_id or "")
    raise CannotSay(f"{what} source of type {source.type} cannot be sent here")


def _call(raw: Raw, unread: set[str]) -> Part:
    block = shapes.TOOL_USE.read(raw, unread)
    arguments = "{}"
    if said(block.input) is not None:
        arguments = msgspec.json.format(bytes(block.input), indent=-1).decode()
    return ToolCall(block.id, block.name, arguments, cache=cache_mark(block.cache_control, unread))


def _result(raw: Raw, unread: set[str]) -> Part:
    block = shapes.TOOL_RESULT.read(raw, unread)
    content = block.content or ""
    return ToolResult(
        block.tool_use_id,
        content if isinstance(content, str) else tuple(_parts(content, unread)),
        bool(block.is_error),
        cache_mark(block.cache_control, unread),
    )


def _thought(raw: Raw, unread: set[str]) -> Part:
    block = shapes.THOUGHT.read(raw, unread)
    signature, sealed = block.signature or "", block.data or ""
    vendor = VENDOR if signature or sealed else ""
    return Reasoning(block.thinking, signature, sealed, vendor)


_PARTS: Final[Mapping[str, Callable[[Raw, set[str]], Part]]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "tool_use": _call,
    "tool_result": _result,
    "thinking": _thought,
    "redacted_thinking": _thought,
}


def _read_tool(raw: Raw, unread: set[str]) -> Tool:
    kind = _tool_kind(raw).type or _CUSTOM
    if kind != _CUSTOM:
        return VendorTool(kind, raw, "caller" if kind.startswith(CLIENT_TOOLS) else "vendor")
    tool = shapes.TOOL.read(raw, unread)
    return Function(
        tool.name,
        tool.description or "",
        said(tool.input_schema),
        bool(tool.strict),
        cache_mark(tool.cache_control, unread),
    )


def _read_choice(raw: Raw, unread: set[str]) -> ToolChoice:
    if said(raw) is None:
        return ToolChoice()
    choice = shapes.CHOICE.read(raw, unread)
    parallel = False if choice.disable_parallel_tool_use else None
    if choice.type == "tool":
        if not choice.name:
            raise CannotSay("tool_choice names no tool", param="tool_choice")
        return ToolChoice(name=choice.name, parallel=parallel)
    if choice.type not in _MODES:
        raise CannotSay(f"tool_choice of type {choice.type} is not known", param="tool_choice")
    return ToolChoice(_MODES[choice.type], parallel=parallel)


def _read_format(raw: Raw, unread: set[str]) -> Format | None:
    if said(raw) is None:
        return None
    asked = shapes.FORMAT.read(raw, unread)
    if asked.type != "json_schema":
        raise CannotSay(f"an output format of type {asked.type} cannot be sent to this provider")
    return Format(said(asked.schema) or Raw(b"{}"))


def _read_thinking(raw: Raw, unread: set[str]) -> Thinking | None:
    if said(raw) is None:
        return None
    asked = shapes.THINKING.read(raw, unread)
    return Thinking(asked.type, asked.budget_tokens)


def _read_user(raw: Raw, unread: set[str]) -> str:
    return "" if said(raw) is None else shapes.METADATA.read(raw, unread).user_id or ""
