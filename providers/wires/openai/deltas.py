"""What a choice of an OpenAI-like server says: text, reasoning and tool calls, under the names and
in the shapes that servers give them. Pure.
"""

import json
from typing import Any, cast

import msgspec

from providers.chat import CallDelta
from providers.json_values import JsonObject, JsonValue


class Delta(msgspec.Struct):
    """A delta of a stream or the message of a whole answer: the same fields."""

    content: JsonValue = None
    refusal: str | None = None
    reasoning: JsonValue = None
    reasoning_content: JsonValue = None
    tool_calls: JsonValue = None
    function_call: JsonObject | None = None  # what tool_calls were before


class Choice(msgspec.Struct):
    index: Any = None
    delta: Delta | None = None
    message: Delta | None = None
    text: str | None = None  # as the older kind of completions says it
    finish_reason: Any = None
    # What ended it, a text or a token's number: vLLM's and SGLang's words for it.
    stop_reason: Any = None
    matched_stop: Any = None


def spoken(delta: Delta) -> tuple[str, str, list[CallDelta] | None]:
    """Text, reasoning and calls; ValueError where something stands in the place of content that is
    none."""
    content, reasoning = delta.content, delta.reasoning_content or delta.reasoning
    calls = None
    if delta.tool_calls or delta.function_call:
        calls = _calls(delta)
    if (content is None or type(content) is str) and reasoning is None:
        return content or delta.refusal or "", "", calls
    text, thoughts = _parts(content or "")
    said = "".join(_parts(reasoning or ""))
    return text or delta.refusal or "", said + thoughts, calls


def _parts(content: JsonValue) -> tuple[str, str]:
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


def _calls(delta: Delta) -> list[CallDelta] | None:
    """Tool calls with arguments as text, which some servers send as an object."""
    calls = delta.tool_calls
    if not calls and delta.function_call:
        calls = [{"index": 0, "function": delta.function_call}]
    if not isinstance(calls, list):
        calls = [calls]
    return [_with_text(call) for call in calls] or None


def _with_text(call: JsonValue) -> CallDelta:
    if not isinstance(call, dict):
        raise ValueError("tool_calls are no list of objects")
    function = call.get("function")
    if function is None:
        return cast(CallDelta, call)
    if not isinstance(function, dict):
        raise ValueError("the function of a tool call is no object")
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        call = {**call, "function": {**function, "arguments": json.dumps(arguments)}}
    return cast(CallDelta, call)
