"""A request in the OpenAI shape -> Anthropic's.

System messages are gathered into `system`, tool results go into the user's next message, and
neighbours of one role are joined, because Anthropic wants roles to alternate. SAID are the fields
that arrive; what else a caller sends only tunes, is left out, and told to be.
"""

from typing import Any

import msgspec

from providers.errors import CannotSay

Block = dict[str, Any]
Message = dict[str, Any]

# Anthropic's scale ends at 1, OpenAI's at 2.
TEMPERATURE_MAX = 1.0
PDF = "application/pdf"
_number = msgspec.json.Decoder(float | None).decode
SAID = frozenset(
    "messages temperature top_p top_k stop tools tool_choice parallel_tool_calls response_format "
    "user".split()
)


def is_hotter(temperature: msgspec.Raw | None) -> bool:
    """Whether this is above what can be said, and is lowered to it."""
    return temperature is not None and (_number(temperature) or 0.0) > TEMPERATURE_MAX


def messages_body(body: bytes) -> dict[str, Any]:
    """The whole request but for model, limit and stream, which the wire decides."""
    source = msgspec.json.decode(body)
    target: dict[str, Any] = {"messages": _messages(source["messages"])}
    target.update(_system(source["messages"]))
    target.update(_sampling(source))
    if source.get("stop"):
        stop = source["stop"]
        target["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if source.get("tools"):
        tools, chosen = _allowed(source["tools"], source.get("tool_choice"))
        target["tools"] = [_tool(tool) for tool in tools]
        choice = _tool_choice(chosen, source.get("parallel_tool_calls"))
        if choice:
            target["tool_choice"] = choice
    target.update(_output_config(source.get("response_format")))
    if source.get("user"):
        target["metadata"] = {"user_id": source["user"]}
    return target


def _system(source: list[Message]) -> dict[str, Any]:
    """One text; blocks as they are where a message has several."""
    contents = [m.get("content") for m in source if m["role"] in ("system", "developer")]
    blocks = [_content(content) for content in contents]
    if any(len(each) > 1 for each in blocks):
        return {"system": [block for each in blocks for block in each]}
    texts = [each[0]["text"] for each in blocks if each]
    return {"system": "\n\n".join(texts)} if texts else {}


def _sampling(source: dict[str, Any]) -> dict[str, Any]:
    """Many clients always send both temperature and top_p; newer models refuse them together, so
    that the one that says nothing is left out."""
    fields = {
        name: source[name]
        for name in ("temperature", "top_p", "top_k")
        if source.get(name) is not None
    }
    if "temperature" in fields:
        fields["temperature"] = min(fields["temperature"], TEMPERATURE_MAX)
        if fields.get("top_p") == 1:
            del fields["top_p"]
        elif "top_p" in fields and fields["temperature"] == 1:
            del fields["temperature"]
    if fields.get("top_k", 1) < 1:
        del fields["top_k"]  # -1 and 0 are how other servers say none
    return fields


def _allowed(
    tools: list[dict[str, Any]], choice: str | dict[str, Any] | None
) -> tuple[list[dict[str, Any]], str | dict[str, Any] | None]:
    """The tools that `allowed_tools` leaves, and the choice among them."""
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools, choice
    allowed = choice.get("allowed_tools") or choice
    names = {(tool.get("function") or tool).get("name") for tool in allowed["tools"]}
    left = [tool for tool in tools if (tool.get("function") or {}).get("name") in names]
    if not left:
        raise CannotSay("tool_choice allows none of the tools", param="tool_choice")
    return left, allowed.get("mode") or "auto"


def _messages(source: list[Message]) -> list[Message]:
    messages: list[Message] = []
    for message in source:
        role = message["role"]
        if role in ("system", "developer"):
            continue
        if role == "tool":
            role, blocks = "user", [_tool_result(message)]
        elif role == "assistant":
            blocks = _content(message.get("content")) + _tool_uses(message)
        else:
            blocks = _content(message.get("content"))
        if not blocks:
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
    _trim_end(messages)
    if not messages:
        raise CannotSay("a conversation needs a message of the user", param="messages")
    return messages


def _trim_end(messages: list[Message]) -> None:
    """Anthropic refuses white space at the end of a last message of the assistant's."""
    if messages and messages[-1]["role"] == "assistant":
        block = messages[-1]["content"][-1]
        if block["type"] == "text":
            block["text"] = block["text"].rstrip()


def _content(content: str | list[dict[str, Any]] | None) -> list[Block]:
    """Text of nothing but white space says nothing, and is refused there."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content and content.strip() else []
    return [block for block in map(_block, content) if block is not None]


def _block(part: dict[str, Any]) -> Block | None:
    kind = part["type"]
    if kind in ("text", "refusal"):
        text = part.get(kind)
        return {"type": "text", "text": text} if text and text.strip() else None
    if kind == "file":
        return _document(part.get("file") or {})
    if kind != "image_url":
        raise CannotSay(f"content of type {kind} cannot be sent to this provider")
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise CannotSay("an image_url needs a url", param="messages")
    return {"type": "image", "source": _image_source(url)}


def _document(file: dict[str, Any]) -> Block:
    head, _, data = (file.get("file_data") or "").partition(",")
    if head != f"data:{PDF};base64" or not data:
        raise CannotSay("only PDF files with their data can be sent to this provider")
    block: Block = {
        "type": "document",
        "source": {"type": "base64", "media_type": PDF, "data": data},
    }
    if file.get("filename"):
        block["title"] = file["filename"]
    return block


def _image_source(url: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, comma, data = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        raise CannotSay("a data URL of an image must be base64", param="messages")
    return {"type": "base64", "media_type": head.removesuffix(";base64"), "data": data}


def _tool_uses(message: Message) -> list[Block]:
    return [_tool_use(call) for call in message.get("tool_calls") or ()]


def _tool_use(call: dict[str, Any]) -> Block:
    function = call.get("function")
    if function is None:
        raise CannotSay("only function tools can be sent to this provider", param="messages")
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise CannotSay(
            f"the arguments of the call of {function['name']} are not a JSON object",
            param="messages",
        )
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _tool_result(message: Message) -> Block:
    content = message.get("content")
    return {
        "type": "tool_result",
        "tool_use_id": message["tool_call_id"],
        "content": content if isinstance(content, str) else _content(content),
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if function is None:
        raise CannotSay("only function tools can be sent to this provider", param="tools")
    target = {
        "name": function["name"],
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        target["description"] = function["description"]
    return target


def _tool_choice(
    choice: str | dict[str, Any] | None, parallel: bool | None
) -> dict[str, Any] | None:
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        if not name:
            raise CannotSay("tool_choice names no function", param="tool_choice")
        target: dict[str, Any] = {"type": "tool", "name": name}
    elif choice in ("auto", "none", "required", None):
        target = {"type": {"required": "any", None: "auto"}.get(choice, choice)}
    else:
        raise CannotSay(f"tool_choice {choice} is not known", param="tool_choice")
    if parallel is False and target["type"] != "none":
        target["disable_parallel_tool_use"] = True
    elif choice is None:
        return None
    return target


def _output_config(response_format: dict[str, Any] | None) -> dict[str, Any]:
    if not response_format or response_format.get("type") != "json_schema":
        return {}
    schema = (response_format.get("json_schema") or {}).get("schema") or {}
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
