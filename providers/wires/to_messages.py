"""A request in the OpenAI shape -> Anthropic's.

System messages are gathered into `system`, tool results go into the user's next message, and
neighbours of one role are joined, because Anthropic wants roles to alternate. Penalties,
seed and logit_bias are left out: Anthropic has none, and they only tune.
"""

from typing import Any

import msgspec

from providers.errors import BadRequest

Block = dict[str, Any]
Message = dict[str, Any]

# Anthropic's scale ends at 1, OpenAI's at 2.
TEMPERATURE_MAX = 1.0


def messages_body(body: bytes) -> dict[str, Any]:
    """The whole request but for model, limit and stream, which the wire decides."""
    source = msgspec.json.decode(body)
    target: dict[str, Any] = {"messages": _messages(source["messages"])}
    system = [
        _text(m.get("content")) for m in source["messages"] if m["role"] in ("system", "developer")
    ]
    if any(system):
        target["system"] = "\n\n".join(text for text in system if text)
    if source.get("temperature") is not None:
        target["temperature"] = min(source["temperature"], TEMPERATURE_MAX)
    if source.get("top_p") is not None:
        target["top_p"] = source["top_p"]
    if source.get("stop"):
        stop = source["stop"]
        # Anthropic refuses sequences of white space alone.
        target["stop_sequences"] = [
            text for text in ([stop] if isinstance(stop, str) else stop) if text.strip()
        ]
    if source.get("tools"):
        target["tools"] = [_tool(tool) for tool in source["tools"]]
        choice = _tool_choice(source.get("tool_choice"), source.get("parallel_tool_calls"))
        if choice:
            target["tool_choice"] = choice
    target.update(_output_config(source.get("response_format")))
    if source.get("user"):
        target["metadata"] = {"user_id": source["user"]}
    return target


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
    if not messages:
        raise BadRequest("a conversation needs a message of the user", param="messages")
    return messages


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n\n".join(part.get("text") or part.get("refusal") or "" for part in content)


def _content(content: str | list[dict[str, Any]] | None) -> list[Block]:
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for block in map(_block, content) if block is not None]


def _block(part: dict[str, Any]) -> Block | None:
    kind = part["type"]
    if kind in ("text", "refusal"):
        text = part.get(kind)
        return {"type": "text", "text": text} if text else None
    if kind != "image_url":
        raise BadRequest(f"content of type {kind} cannot be sent to this provider")
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise BadRequest("an image_url needs a url", param="messages")
    return {"type": "image", "source": _image_source(url)}


def _image_source(url: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, comma, data = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        raise BadRequest("a data URL of an image must be base64", param="messages")
    return {"type": "base64", "media_type": head.removesuffix(";base64"), "data": data}


def _tool_uses(message: Message) -> list[Block]:
    return [_tool_use(call) for call in message.get("tool_calls") or ()]


def _tool_use(call: dict[str, Any]) -> Block:
    function = call.get("function")
    if function is None:
        raise BadRequest("only function tools can be sent to this provider", param="messages")
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(
            f"the arguments of the call of {function['name']} are not a JSON object",
            param="messages",
        )
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _tool_result(message: Message) -> Block:
    return {
        "type": "tool_result",
        "tool_use_id": message["tool_call_id"],
        "content": _text(message.get("content")),
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if function is None:
        raise BadRequest("only function tools can be sent to this provider", param="tools")
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
            raise BadRequest("tool_choice names no function", param="tool_choice")
        target: dict[str, Any] = {"type": "tool", "name": name}
    elif choice in ("auto", "none", "required", None):
        target = {"type": {"required": "any", None: "auto"}.get(choice, choice)}
    else:
        raise BadRequest(f"tool_choice {choice} is not known", param="tool_choice")
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
