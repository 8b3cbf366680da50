"""A Chat Completions request as the conversation that it is.

Asked for only where a seller's wire is another than this dialect; the surface has checked what it
acts on, what else is wrong in shape shows here.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.dataplane.surfaces.reading import openai_shapes as shapes
from gateway.dataplane.surfaces.reading.shapes import NULL, cache_mark, given, left, said
from providers.conversation import (
    Address,
    Audio,
    CacheMark,
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
    Role,
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
    Nuance.EFFORT: "reasoning_effort",
    Nuance.THINKING: "reasoning",
    Nuance.SPEAKERS: "messages.name",
    Nuance.DETAIL: "image_url.detail",
    Nuance.CACHE_MARKS: "cache_control",
    Nuance.REASONING: "messages.reasoning",
    Nuance.STRICT_TOOLS: "tools.strict",
}
# Needs of the request, where they matter at all, or nothing that an answer depends on.
_ELSEWHERE: Final = frozenset({"n", "logprobs", "metadata", "store", "safety_identifier"})
_DATA: Final = "data:"
_EMPTY: Final = Raw(b"{}")
# What a part holds stands under the name of its type.
_CONTENTS: Final = ("text", "refusal", "image_url", "input_audio", "file")
_NO_CONTENT: Final = (None, "", NULL)
_MODES: Final[Mapping[str, Mode]] = {"auto": "auto", "none": "none", "required": "required"}


_choice = msgspec.json.Decoder(shapes.Choice | str).decode
_allowed = msgspec.json.Decoder(shapes.Allowed).decode
_list = msgspec.json.Decoder(list[Raw] | None).decode
_encode = msgspec.json.Encoder().encode

_SETTINGS: Final = frozenset(shapes.Settings.__struct_fields__)
_READ: Final = (
    _SETTINGS | {"messages", "tools"} | _ELSEWHERE | body_fields.OURS | body_fields.DECIDED
)


def read(fields: Mapping[str, Raw]) -> Conversation:
    """The whole request but for what the wire decides. CannotSay where it has no such shape."""
    unread = set(left(fields, _READ))
    written = _encode({name: value for name, value in fields.items() if name in _SETTINGS})
    asked = shapes.SETTINGS.read(written, unread)
    tools = tuple(_read_tool(raw, unread) for raw in _list(fields.get("tools", b"null")) or ())
    stop = asked.stop or ()
    thinking = _read_thinking(asked.reasoning, unread)
    return Conversation(
        turns=tuple(_turn(raw, unread) for raw in _list(fields["messages"]) or ()),
        tools=tools,
        choice=_read_choice(asked) if tools else ToolChoice(),
        format=_read_format(asked.response_format, unread),
        sampling=Sampling(
            **{name: getattr(asked, name) for name in Sampling.__struct_fields__},
        ),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        effort=asked.reasoning_effort or "",
        thinking=thinking,
        user=asked.user or "",
        names=NAMES,
        unread=frozenset(unread),
    )


def _turn(raw: Raw, unread: set[str]) -> Turn:
    message = shapes.MESSAGE.read(raw, unread)
    if message.role == "function":
        return Turn("user", (Other("function", raw),))
    role: Role = "user" if message.role == "tool" else message.role
    parts = list(_thoughts(message))
    if message.role == "tool":
        parts.append(ToolResult(message.tool_call_id, _result(message.content, unread)))
    else:
        parts += _parts(message.content, unread)
    if message.refusal:
        parts.append(Text(message.refusal, refused=True))
    parts += [_call(each, unread) for each in message.tool_calls or ()]
    if given(message.function_call):
        parts.append(Other("function_call", message.function_call))
    if given(message.audio):
        parts.append(Other("audio", message.audio))
    return Turn(role, tuple(parts), message.name or "")


def _thoughts(message: shapes.Message) -> tuple[Part, ...]:
    text = message.reasoning or message.reasoning_content
    return (Reasoning(text),) if text else ()


def _result(content: str | list[Raw] | None, unread: set[str]) -> str | tuple[Part, ...]:
    return content if isinstance(content, str) else tuple(_parts(content, unread))


def _parts(content: str | list[Raw] | None, unread: set[str]) -> list[Part]:
    if content is None or isinstance(content, str):
        return [] if content is None else [Text(content)]
    return [_read_part(raw, unread) for raw in content]


def _read_part(raw: Raw, unread: set[str]) -> Part:
    part = shapes.PART.read(raw, unread)
    unread.update(
        f"messages.content.{name}"
        for name in _CONTENTS
        if name != part.type and getattr(part, name) not in _NO_CONTENT
    )
    cache = cache_mark(part.cache_control, unread)
    if part.type == "text":
        return Text(part.text or "", cache=cache)
    if part.type == "refusal":
        return Text(part.refusal or "", refused=True, cache=cache)
    if part.type == "image_url":
        return _image(part.image_url, cache, unread)
    if part.type == "input_audio" and given(part.input_audio):
        audio = shapes.INPUT_AUDIO.read(part.input_audio, unread)
        return Audio(Inline("", audio.data), audio.format or "")
    if part.type == "file":
        return _document(part.file, cache, unread)
    return Other(part.type, raw)


def _image(raw: Raw, cache: CacheMark | None, unread: set[str]) -> Image:
    if not given(raw):
        raise CannotSay("an image_url needs a url", param="messages")
    if bytes(raw).startswith(b'"'):
        image = shapes.ImageUrl(msgspec.json.decode(raw, type=str))
    else:
        image = shapes.IMAGE_URL.read(raw, unread)
    detail = image.detail if image.detail not in (None, "auto") else ""
    return Image(_source(image.url), detail or "", cache)


def _source(url: str) -> Source:
    if not url.startswith(_DATA):
        return Address(url)
    head, comma, data = url[len(_DATA) :].partition(",")
    if not comma or not head.endswith(";base64"):
        raise CannotSay("a data URL of an image must be base64", param="messages")
    return Inline(head.removesuffix(";base64"), data)


def _document(raw: Raw, cache: CacheMark | None, unread: set[str]) -> Document:
    file = shapes.FILE.read(raw if given(raw) else _EMPTY, unread)
    title = file.filename or ""
    if file.file_data:
        head, _, data = file.file_data.removeprefix(_DATA).partition(";base64,")
        source: Source = Inline(head, data) if data else Inline("", file.file_data)
    elif file.file_url:
        source = Address(file.file_url)
    else:
        source = Uploaded(file.file_id or "")
    return Document(source, title, cache=cache)


def _call(raw: Raw, unread: set[str]) -> ToolCall:
    call = shapes.TOOL_CALL.read(raw, unread)
    if given(call.custom):
        free = shapes.CALLED_FREELY.read(call.custom, unread)
        return ToolCall(call.id, free.name, free.input, is_free=True)
    if not given(call.function):
        raise CannotSay("only function tools can be sent to this provider", param="messages")
    function = shapes.CALLED.read(call.function, unread)
    return ToolCall(call.id, function.name, function.arguments or "")


def _read_tool(raw: Raw, unread: set[str]) -> Tool:
    tool = shapes.TOOL.read(raw, unread)
    if not given(tool.function):
        kind = tool.type or ""
        return VendorTool(kind, raw, run_by="caller" if kind == "custom" else "vendor")
    function = shapes.FUNCTION.read(tool.function, unread)
    return Function(
        function.name,
        function.description or "",
        said(function.parameters),
        bool(function.strict),
        cache_mark(tool.cache_control, unread),
    )


def _read_choice(asked: shapes.Settings) -> ToolChoice:
    parallel = asked.parallel_tool_calls
    if not given(asked.tool_choice):
        return ToolChoice(parallel=parallel)
    try:
        choice = _choice(asked.tool_choice)
        if isinstance(choice, str):
            if choice not in _MODES:
                raise CannotSay(f"tool_choice {choice} is not known", param="tool_choice")
            return ToolChoice(_MODES[choice], parallel=parallel)
        if choice.type == "allowed_tools":
            allowed = _allowed(said(choice.allowed_tools) or asked.tool_choice)
            names = tuple((tool.function or tool).name for tool in allowed.tools)
            if not names:
                raise CannotSay("tool_choice allows none of the tools", param="tool_choice")
            return ToolChoice(allowed.mode or "auto", allowed=names, parallel=parallel)
    except msgspec.ValidationError as wrong:
        raise CannotSay(f"tool_choice is not known: {wrong}", param="tool_choice") from None
    if choice.function is None or not choice.function.name:
        raise CannotSay("tool_choice names no function", param="tool_choice")
    return ToolChoice(name=choice.function.name, parallel=parallel)


def _read_format(raw: Raw, unread: set[str]) -> Format | None:
    if said(raw) is None:
        return None
    asked = shapes.FORMAT.read(raw, unread)
    if asked.type == "text":
        return None
    if asked.type == "json_object":
        return Format(None)
    if asked.type != "json_schema":
        raise CannotSay(f"a response_format of type {asked.type} cannot be sent to this provider")
    stated = shapes.JSON_SCHEMA.read(said(asked.json_schema) or _EMPTY, unread)
    schema = said(stated.schema) or _EMPTY
    return Format(schema, stated.name or "", bool(stated.strict))


def _read_thinking(raw: Raw, unread: set[str]) -> Thinking | None:
    if said(raw) is None:
        return None
    asked = shapes.THINKING.read(raw, unread)
    return Thinking(asked.effort or "", asked.max_tokens)
