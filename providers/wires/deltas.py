"""What a choice of an OpenAI-like server says: text, reasoning and tool calls, under the names and
in the shapes that servers give them. Pure.
"""

import json
from typing import Any, NamedTuple

import msgspec


class Delta(msgspec.Struct):
    """A delta of a stream or the message of a whole answer: the same fields."""

    content: Any = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None
    function_call: dict[str, Any] | None = None  # what tool_calls were before


class Spoken(NamedTuple):
    text: str
    reasoning: str
    calls: list[dict[str, Any]] | None


def spoken(delta: Delta) -> Spoken:
    """ValueError where something stands in the place of content that is none."""
    content, thoughts = delta.content, ""
    if content is None or type(content) is str:
        text = content or ""
    else:
        text, thoughts = _parts(content)
    reasoning = delta.reasoning_content or delta.reasoning
    if reasoning is not None and type(reasoning) is not str:
        reasoning = "".join(_parts(reasoning))
    return Spoken(
        text or delta.refusal or "",
        (reasoning or "") + thoughts,
        _calls(delta) if delta.tool_calls or delta.function_call else None,
    )


def _parts(content: Any) -> tuple[str, str]:
    """The text, and apart from it the thinking, of content in parts (Mistral) or in an object."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, dict):
        if content.get("thinking") is not None:
            return "", "".join(_parts(content["thinking"]))
        text = content.get("text")
        return text if isinstance(text, str) else "", ""
    if not isinstance(content, list):
        raise ValueError("content is neither text nor parts")
    found = [_parts(part) for part in content]
    return "".join(text for text, _ in found), "".join(thoughts for _, thoughts in found)


def _calls(delta: Delta) -> list[dict[str, Any]] | None:
    """Tool calls with arguments as text, which some servers send as an object."""
    calls = delta.tool_calls
    if not calls and delta.function_call:
        calls = [{"index": 0, "function": delta.function_call}]
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise ValueError("tool_calls are no list of objects")
    return [_with_text(call) for call in calls] or None


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if function is None:
        return call
    if not isinstance(function, dict):
        raise ValueError("the function of a tool call is no object")
    arguments = function.get("arguments")
    if arguments is None or isinstance(arguments, str):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(arguments)}}
