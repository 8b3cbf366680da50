"""A request in Anthropic's shape -> the OpenAI shape, which is the common one.

What OpenAI has no words for was filtered by routing where it matters (tools of the vendor's,
files, a beginning of the answer). SAID are the fields that arrive; what else a caller sends only
tunes, is left out, and told to be.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Any

import msgspec

from providers.errors import CannotSay

SAID = frozenset(
    "messages system temperature top_p stop_sequences tools tool_choice metadata".split()
)

Block = dict[str, Any]
Message = dict[str, Any]


def chat_body(body: bytes) -> dict[str, Any]:
    """The whole request but for model, limit and stream, which the wire decides."""
    source = msgspec.json.decode(body)
    chat: dict[str, Any] = {"messages": _messages(source)}
    for name in ("temperature", "top_p"):
        if source.get(name) is not None:
            chat[name] = source[name]
    if source.get("stop_sequences"):
        chat["stop"] = source["stop_sequences"]
    if source.get("tools"):
        chat["tools"] = [_tool(tool) for tool in source["tools"]]
        chat.update(_tool_choice(source.get("tool_choice")))
    output_format = (source.get("output_config") or {}).get("format")
    if output_format:
        chat["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": output_format.get("schema") or {}},
        }
    user = (source.get("metadata") or {}).get("user_id")
    if user:
        chat["user"] = user
    return chat


def _messages(source: dict[str, Any]) -> list[Message]:
    messages: list[Message] = []
    system = _texts(source.get("system") or "")
    if system:
        messages.append({"role": "system", "content": system})
    for message in source["messages"]:
        content = message["content"]
        if isinstance(content, str):
            messages.append({"role": message["role"], "content": content})
        elif message["role"] == "assistant":
            messages.append(_assistant(content))
        elif message["role"] == "system":
            messages.append({"role": "system", "content": _texts(content)})
        else:
            messages += _user(content)
    return messages


def _texts(content: str | Iterable[Block]) -> str | list[Block]:
    """One text as itself, several as they are: nothing is put between them that nobody said."""
    if isinstance(content, str):
        return content
    parts = [{"type": "text", "text": b["text"]} for b in content if b["type"] == "text"]
    return parts if len(parts) > 1 else "".join(part["text"] for part in parts)


def _assistant(blocks: list[Block]) -> Message:
    """Text and tool calls; thinking is not said again, other vendors cannot verify it."""
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    message: Message = {"role": "assistant", "content": text or None}
    calls = [_tool_call(block) for block in blocks if block["type"] == "tool_use"]
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: Block) -> dict[str, Any]:
    arguments = msgspec.json.encode(block.get("input") or {}).decode()
    return {
        "id": block["id"],
        "type": "function",
        "function": {"name": block["name"], "arguments": arguments},
    }


def _user(blocks: list[Block]) -> list[Message]:
    """Tool results become messages of their own, before what the user says beside them."""
    messages: list[Message] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] == "tool_result":
            content = block.get("content") or ""
            messages.append(
                {
                    "role": "tool",
                    "tool_call_id": block["tool_use_id"],
                    "content": _texts(content),
                }
            )
            if not isinstance(content, str):
                # A tool message holds text only: its images follow as the user's.
                parts += _parts(inner for inner in content if inner["type"] != "text")
        else:
            parts += _parts([block])
    if parts:
        is_one_text = len(parts) == 1 and parts[0]["type"] == "text"
        content = parts[0]["text"] if is_one_text else parts
        messages.append({"role": "user", "content": content})
    return messages


def _parts(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block["type"] == "document":
            parts += _document(block)
        else:
            parts.append(_part(block))
    return parts


def _document(block: Block) -> list[dict[str, Any]]:
    """A document of text is text; its title and context stand before it."""
    source = block.get("source") or {}
    names = [block[name] for name in ("title", "context") if block.get(name)]
    before = [{"type": "text", "text": name} for name in names]
    if source.get("type") == "text":
        return [*before, {"type": "text", "text": source["data"]}]
    if source.get("type") == "content":
        content = source["content"]
        if isinstance(content, str):
            return [*before, {"type": "text", "text": content}]
        return [*before, *_parts(content)]
    raise CannotSay(f"a document source of type {source.get('type')} cannot be sent here")


def _part(block: Block) -> dict[str, Any]:
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    if block["type"] != "image":
        raise CannotSay(f"content of type {block['type']} cannot be sent to this provider")
    source = block.get("source") or {}
    if source.get("type") == "url":
        return {"type": "image_url", "image_url": {"url": source.get("url")}}
    if source.get("type") != "base64":
        raise CannotSay(f"an image source of type {source.get('type')} cannot be sent here")
    data = source.get("data") or ""
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise CannotSay("an image is not valid base64") from None
    url = f"data:{source.get('media_type')};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool.get("input_schema") or {}}
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _tool_choice(choice: dict[str, Any] | None) -> dict[str, Any]:
    if not choice:
        return {}
    kind = choice.get("type")
    fields: dict[str, Any] = {}
    if kind == "tool":
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind in ("auto", "none", "any"):
        fields["tool_choice"] = "required" if kind == "any" else kind
    else:
        raise CannotSay(f"tool_choice of type {kind} is not known", param="tool_choice")
    if choice.get("disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields
