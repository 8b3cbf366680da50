"""The body of a chat completion: messages, and the functions that the model may call."""

import json
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from workers.json_values import Json
from workers.server.errors import BadRequest
from workers.server.request_fields import Count, Sampling, TopLogprobs, unsupported
from workers.text.tools import Function

MAX_TOOLS = 128

FunctionName = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct):
    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"


class FunctionSpec(msgspec.Struct, omit_defaults=True):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Json] | None = None


class Tool(msgspec.Struct):
    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    type: Literal["function"]
    function: NamedFunction


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatRequest(Sampling, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def logprob_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def usable_tools(self) -> list[dict[str, Json]]:
        """The tools as templates show them; none if they may not be called."""
        if not self.tools or self.tool_choice == "none":
            return []
        return [msgspec.to_builtins(tool) for tool in self.tools]

    @property
    def forced_functions(self) -> list[Function]:
        """Those of which one must be called; none where the model decides."""
        if self.tool_choice in (None, "none", "auto"):
            return []
        specs = [tool.function for tool in self.tools or []]
        if isinstance(self.tool_choice, NamedTool):
            specs = [spec for spec in specs if spec.name == self.tool_choice.function.name]
        if not specs:
            raise BadRequest(
                "tool_choice asks for a function that tools does not list",
                code="invalid_value",
                param="tool_choice",
            )
        return [Function(spec.name, spec.parameters) for spec in specs]

    def check_supported(self, *, template_has_tools: bool) -> None:
        """Refuse what the model's chat template cannot express, and what contradicts itself."""
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise unsupported("continue_final_message", "the last message is not the assistant's")
        names = [tool.function.name for tool in self.tools or []]
        if len(set(names)) < len(names):
            raise BadRequest("tools lists a name twice", code="invalid_value", param="tools")
        if self.usable_tools and self.schema is not None:
            raise unsupported("response_format", "an answer is either a call or meets a schema")
        if template_has_tools:
            return
        if self.usable_tools and not self.forced_functions:
            raise unsupported(
                "tools",
                "this model's chat template knows no tools, so it cannot decide about them; "
                'set tool_choice to "required" or to a function',
            )
        if any(message.role == "tool" or message.tool_calls for message in self.messages):
            raise unsupported("messages", "this model's chat template knows no tool calls")


def template_messages(messages: list[Message]) -> list[dict[str, Json]]:
    """Messages as chat templates read them."""
    rendered: list[dict[str, Json]] = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        entry: dict[str, Json] = {"role": role, "content": message.text}
        if message.tool_calls:
            entry["tool_calls"] = [_template_call(call) for call in message.tool_calls]
        if message.tool_call_id:
            entry["tool_call_id"] = message.tool_call_id
        rendered.append(entry)
    return rendered


def _template_call(call: ToolCall) -> dict[str, Json]:
    """Templates write the arguments as JSON themselves, so they get them as an object."""
    try:
        arguments: Json = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        raise BadRequest(
            f"the arguments of {call.function.name[:64]!r} are not JSON",
            code="invalid_value",
            param="messages",
        ) from None
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}
