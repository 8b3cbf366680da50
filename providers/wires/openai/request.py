"""A conversation as Chat Completions want it.

Tool results become messages of their own, before what the user says beside them; earlier thoughts
are not said again, because other vendors cannot verify them.
"""

import base64
import binascii
from collections.abc import Iterable

import msgspec

from providers import conversation as middle
from providers.conversation import Conversation, Nuance, nuances
from providers.errors import CannotSay
from providers.wires.openai import body
from providers.wires.openai.body import Body, Message, Part

Raw = msgspec.Raw
SAYS = frozenset(
    {
        Nuance.TEMPERATURE,
        Nuance.TOP_P,
        Nuance.SEED,
        Nuance.PRESENCE_PENALTY,
        Nuance.FREQUENCY_PENALTY,
        Nuance.STOP,
        Nuance.USER,
        Nuance.SPEAKERS,
        Nuance.DETAIL,
    }
)
_ANYTHING = Raw(b"{}")
# A schema must have a name here; other dialects give it none.
_SCHEMA_NAME = "answer"


def chat_body(said: Conversation) -> Body:
    """CannotSay where this API has no words for something that matters."""
    asked = said.sampling
    target = Body(
        [message for turn in said.turns for message in _messages(turn)],
        temperature=asked.temperature,
        top_p=asked.top_p,
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        stop=said.stop,
        response_format=_format(said.format),
        user=said.user,
    )
    if not target.messages:
        raise CannotSay("a conversation needs a message of the user", param="messages")
    if said.tools:
        target.tools = [_tool(tool) for tool in said.tools]
        target.tool_choice = _choice(said.choice)
        target.parallel_tool_calls = said.choice.parallel
    return target


def unsaid(said: Conversation) -> set[Nuance]:
    """What is left out."""
    return nuances(said) - SAYS


def _messages(turn: middle.Turn) -> list[Message]:
    if turn.role == "assistant":
        return [_assistant(turn)]
    if turn.role == "user":
        return _user(turn)
    for part in turn.parts:
        if not isinstance(part, middle.Text | middle.Reasoning):
            raise CannotSay(f"{_kind(part)} in a system message cannot be sent to this provider")
    return [body.Asked(turn.role, _texts(turn.parts), turn.speaker)]


def _texts(parts: Iterable[middle.Part]) -> str | list[Part]:
    """One text as itself, several as they are: nothing is put between them that nobody said."""
    found: list[Part] = [body.Text(part.text) for part in parts if isinstance(part, middle.Text)]
    if len(found) > 1:
        return found
    return "".join(part.text for part in parts if isinstance(part, middle.Text))


def _assistant(turn: middle.Turn) -> Message:
    calls = [_call(part) for part in turn.parts if isinstance(part, middle.ToolCall)]
    texts = [part for part in turn.parts if isinstance(part, middle.Text)]
    text = "".join(part.text for part in texts if not part.refused)
    refusal = "".join(part.text for part in texts if part.refused)
    content = None if not text and (calls or refusal) else text
    for part in turn.parts:
        if not isinstance(part, middle.Text | middle.ToolCall | middle.Reasoning):
            raise CannotSay(f"{_kind(part)} in an answer cannot be sent to this provider")
    return body.Answered(content, turn.speaker, refusal, calls or None)


def _call(call: middle.ToolCall) -> body.FunctionCall | body.CustomCall:
    if call.is_free:
        return body.CustomCall(call.id, "custom", body.CalledFreely(call.name, call.arguments))
    return body.FunctionCall(call.id, "function", body.Called(call.name, call.arguments))


def _user(turn: middle.Turn) -> list[Message]:
    messages: list[Message] = []
    written: list[Part] = []
    for part in turn.parts:
        if not isinstance(part, middle.ToolResult):
            written += _parts([part])
            continue
        content = part.content
        if isinstance(content, str):
            messages.append(body.Result(part.call_id, content))
        else:
            messages.append(body.Result(part.call_id, _texts(content)))
            # A tool message holds text only: its images follow as the user's.
            written += _parts(p for p in content if not isinstance(p, middle.Text))
    if written:
        first = written[0]
        is_one = len(written) == 1
        asked = first.text if is_one and isinstance(first, body.Text) else written
        messages.append(body.Asked("user", asked, turn.speaker))
    return messages


def _parts(parts: Iterable[middle.Part]) -> list[Part]:
    written: list[Part] = []
    for part in parts:
        if isinstance(part, middle.Document):
            written += _document(part)
        else:
            written.append(_part(part))
    return written


def _part(part: middle.Part) -> Part:
    if isinstance(part, middle.Text):
        return body.Text(part.text)
    if isinstance(part, middle.Image):
        return body.Image(body.ImageUrl(_url(part.source), part.detail))
    if isinstance(part, middle.Audio) and isinstance(part.source, middle.Inline):
        return body.Audio(body.InputAudio(part.source.data, part.format))
    raise CannotSay(f"{_kind(part)} cannot be sent to this provider")


def _kind(part: middle.Part) -> str:
    return f"content of type {part.kind if isinstance(part, middle.Other) else type(part).__name__}"


def _url(source: middle.Source) -> str:
    if isinstance(source, middle.Address):
        return source.url
    if isinstance(source, middle.Uploaded):
        raise CannotSay("an image source of type file cannot be sent here")
    try:
        base64.b64decode(source.data, validate=True)
    except (binascii.Error, ValueError):
        raise CannotSay("an image is not valid base64") from None
    return _data_url(source)


def _data_url(source: middle.Inline) -> str:
    return f"data:{source.media_type};base64,{source.data}"


def _document(part: middle.Document) -> list[Part]:
    """A document of text is text; its title and context stand before it."""
    content = part.content
    if isinstance(content, middle.Inline):
        return [body.File(body.FileData(_data_url(content), part.title))]
    before: list[Part] = [body.Text(words) for words in (part.title, part.context) if words]
    if isinstance(content, str):
        return [*before, body.Text(content)]
    if isinstance(content, tuple):
        return [*before, *_parts(content)]
    kind = "url" if isinstance(content, middle.Address) else "file"
    raise CannotSay(f"a document source of type {kind} cannot be sent here")


def _tool(tool: middle.Tool) -> body.Tool:
    if not isinstance(tool, middle.Function):
        raise CannotSay(f"a tool of type {tool.kind} cannot be sent here", param="tools")
    parameters = tool.schema or _ANYTHING
    return body.Tool(body.Function(tool.name, parameters, tool.description))


def _choice(choice: middle.ToolChoice) -> middle.Mode | body.NamedTool | body.Allowed | None:
    if choice.name:
        return body.NamedTool(body.Named(choice.name))
    if choice.allowed:
        tools = [body.NamedTool(body.Named(name)) for name in choice.allowed]
        return body.Allowed(body.AllowedTools(choice.mode or "auto", tools))
    return choice.mode


def _format(asked: middle.Format | None) -> body.SchemaFormat | body.ObjectFormat | None:
    if asked is None:
        return None
    if asked.schema is None:
        return body.ObjectFormat()
    return body.SchemaFormat(
        body.JsonSchema(asked.name or _SCHEMA_NAME, asked.schema, asked.strict)
    )
