"""A conversation as Anthropic's Messages API wants it.

System turns are gathered into `system`, tool results go into the user's next message, and
neighbours of one role are joined, because Anthropic wants roles to alternate.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from providers import conversation as middle
from providers.conversation import Conversation, Nuance, nuances
from providers.errors import CannotSay
from providers.wires.anthropic import blocks
from providers.wires.anthropic.blocks import Block

Raw = msgspec.Raw
VENDOR = "anthropic"
# Anthropic's scale ends at 1, OpenAI's at 2.
TEMPERATURE_MAX = 1.0
SAYS = frozenset(
    {
        Nuance.TEMPERATURE,
        Nuance.TOP_P,
        Nuance.TOP_K,
        Nuance.STOP,
        Nuance.USER,
        Nuance.CACHE_MARKS,
        Nuance.TOOL_ERRORS,
    }
)
_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')


class Message(msgspec.Struct):
    role: Literal["user", "assistant"]
    content: list[Block]


class Tool(msgspec.Struct, omit_defaults=True):
    name: str
    input_schema: Raw
    description: str = ""
    cache_control: blocks.CacheControl | None = None


class Choice(msgspec.Struct, omit_defaults=True):
    type: Literal["auto", "none", "any", "tool"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class OutputFormat(msgspec.Struct, tag="json_schema"):
    schema: Raw


class OutputConfig(msgspec.Struct):
    format: OutputFormat


class Metadata(msgspec.Struct):
    user_id: str


class Body(msgspec.Struct, omit_defaults=True):
    """`model`, `max_tokens` and `stream` are the wire's to fill in."""

    messages: list[Message]
    system: str | list[Block] | None = None
    temperature: int | float | None = None
    top_p: int | float | None = None
    top_k: int | None = None
    stop_sequences: Sequence[str] = ()
    tools: list[Tool] | None = None
    tool_choice: Choice | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    model: str = ""
    max_tokens: int = 0
    stream: bool = False


def messages_body(said: Conversation) -> Body:
    """CannotSay where this API has no words for something that matters."""
    target = Body(_messages(said), system=_system(said), stop_sequences=said.stop)
    _sample(target, said.sampling)
    if said.tools:
        target.tools = [_tool(tool) for tool in _allowed(said)]
        target.tool_choice = _choice(said.choice)
    if said.format is not None:
        if said.format.schema is None:
            raise CannotSay("JSON without a schema cannot be asked of this provider")
        target.output_config = OutputConfig(OutputFormat(said.format.schema))
    if said.user:
        target.metadata = Metadata(said.user)
    return target


def unsaid(said: Conversation) -> set[Nuance]:
    """What is left out, or lowered to what can be said."""
    left = nuances(said) - SAYS
    if Nuance.REASONING in left and all(map(_is_ours, _thoughts(said))):
        left.discard(Nuance.REASONING)
    if (said.sampling.temperature or 0) > TEMPERATURE_MAX:
        left.add(Nuance.TEMPERATURE)
    return left


def _thoughts(said: Conversation) -> Iterable[middle.Reasoning]:
    return (p for turn in said.turns for p in turn.parts if isinstance(p, middle.Reasoning))


def _is_ours(thought: middle.Reasoning) -> bool:
    """Thoughts that it did not sign itself are refused there."""
    return thought.vendor == VENDOR


def _system(said: Conversation) -> str | list[Block] | None:
    """One text; blocks as they are where a turn has several, or marks one."""
    turns = [turn for turn in said.turns if turn.role in ("system", "developer")]
    each = [written for turn in turns if (written := _content(turn.parts))]
    found = [block for written in each for block in written]
    texts = [block.text for block in found if isinstance(block, blocks.Text)]
    if len(texts) < len(found):
        raise CannotSay("a system message of this provider holds text only", param="messages")
    if any(len(written) > 1 or blocks.is_marked(written[0]) for written in each):
        return found
    return "\n\n".join(texts) if texts else None


def _sample(target: Body, asked: middle.Sampling) -> None:
    """Many clients always send both temperature and top_p; newer models refuse them together, so
    that the one that says nothing is left out."""
    temperature, top_p = asked.temperature, asked.top_p
    if temperature is not None:
        temperature = min(temperature, TEMPERATURE_MAX)
        if top_p == 1:
            top_p = None
        elif top_p is not None and temperature == 1:
            temperature = None
    target.temperature, target.top_p = temperature, top_p
    if asked.top_k is not None and asked.top_k >= 1:
        target.top_k = asked.top_k  # -1 and 0 are how other servers say none


def _messages(said: Conversation) -> list[Message]:
    messages: list[Message] = []
    for turn in said.turns:
        content = _content(turn.parts)
        if turn.role == "system" or turn.role == "developer" or not content:
            continue
        if messages and messages[-1].role == turn.role:
            messages[-1].content += content
        else:
            messages.append(Message(turn.role, content))
    _trim_end(messages)
    if not messages:
        raise CannotSay("a conversation needs a message of the user", param="messages")
    return messages


def _trim_end(messages: list[Message]) -> None:
    """Anthropic refuses white space at the end of a last message of the assistant's."""
    if messages and messages[-1].role == "assistant":
        block = messages[-1].content[-1]
        if isinstance(block, blocks.Text):
            block.text = block.text.rstrip()


def _content(parts: Iterable[middle.Part]) -> list[Block]:
    """Text of nothing but white space says nothing, and is refused there."""
    return [block for part in parts if (block := _block(part)) is not None]


def _block(part: middle.Part) -> Block | None:
    if isinstance(part, middle.Text):
        return blocks.Text(part.text, blocks.mark(part.cache)) if part.text.strip() else None
    if isinstance(part, middle.Image):
        return blocks.Image(_source(part.source), blocks.mark(part.cache))
    if isinstance(part, middle.Document):
        return _document(part)
    if isinstance(part, middle.ToolCall):
        return _tool_use(part)
    if isinstance(part, middle.ToolResult):
        return _tool_result(part)
    if isinstance(part, middle.Reasoning):
        return _thought(part)
    kind = part.kind if isinstance(part, middle.Other) else "input_audio"
    raise CannotSay(f"content of type {kind} cannot be sent to this provider")


def _source(source: middle.Source) -> blocks.Source:
    if isinstance(source, middle.Inline):
        return blocks.Base64(source.media_type, source.data)
    if isinstance(source, middle.Address):
        return blocks.Url(source.url)
    raise CannotSay("a file uploaded elsewhere cannot be sent to this provider")


def _document(part: middle.Document) -> Block:
    content = part.content
    source: blocks.Source | blocks.PlainText | blocks.Content
    if isinstance(content, str):
        source = blocks.PlainText(content)
    elif isinstance(content, tuple):
        source = blocks.Content(_content(content))
    elif isinstance(content, middle.Address) or _is_pdf(content):
        source = _source(content)
    else:
        raise CannotSay("only PDF files with their data can be sent to this provider")
    citations = blocks.Citations(enabled=True) if part.cited else None
    return blocks.Document(source, part.title, part.context, citations, blocks.mark(part.cache))


def _is_pdf(source: middle.Source) -> bool:
    if not isinstance(source, middle.Inline):
        return False
    return source.media_type == blocks.PDF and bool(source.data)


def _thought(part: middle.Reasoning) -> Block | None:
    if not _is_ours(part):
        return None
    if part.sealed:
        return blocks.RedactedThinking(part.sealed)
    return blocks.Thinking(part.text, part.signature)


def _tool_use(call: middle.ToolCall) -> Block:
    if call.is_free:
        raise CannotSay("only function tools can be sent to this provider", param="messages")
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise CannotSay(
            f"the arguments of the call of {call.name} are not a JSON object", param="messages"
        )
    # Encoded again, its numbers would be others.
    written = msgspec.json.format(call.arguments or "{}", indent=-1).encode()
    return blocks.ToolUse(call.id, call.name, Raw(written), blocks.mark(call.cache))


def _tool_result(result: middle.ToolResult) -> Block:
    content = result.content
    return blocks.ToolResult(
        result.call_id,
        content if isinstance(content, str) else _content(content),
        result.is_error,
        blocks.mark(result.cache),
    )


def _allowed(said: Conversation) -> Sequence[middle.Tool]:
    """The tools that the choice leaves."""
    names = said.choice.allowed
    if not names:
        return said.tools
    left = [tool for tool in said.tools if isinstance(tool, middle.Function) and tool.name in names]
    if not left:
        raise CannotSay("tool_choice allows none of the tools", param="tool_choice")
    return left


def _tool(tool: middle.Tool) -> Tool:
    if not isinstance(tool, middle.Function):
        raise CannotSay("only function tools can be sent to this provider", param="tools")
    mark = blocks.mark(tool.cache)
    return Tool(tool.name, tool.schema or _NO_PARAMETERS, tool.description, mark)


def _choice(choice: middle.ToolChoice) -> Choice | None:
    target = Choice("tool", choice.name) if choice.name else Choice(_MODES[choice.mode])
    if choice.parallel is False and target.type != "none":
        target.disable_parallel_tool_use = True
    elif choice.mode is None and not choice.name:
        return None
    return target


_MODES: dict[middle.Mode | None, Literal["auto", "none", "any"]] = {
    None: "auto",
    "auto": "auto",
    "none": "none",
    "required": "any",
}
