"""The objects of a Chat Completions request, as far as a conversation has words for them."""

from typing import Literal

import msgspec

from gateway.dataplane.surfaces.reading.shapes import NULL, Shape
from providers.conversation import Mode

Raw = msgspec.Raw
Number = int | float


class Exact(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Settings(Exact):
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    stop: str | list[str] | None = None
    tool_choice: Raw = NULL
    parallel_tool_calls: bool | None = None
    response_format: Raw = NULL
    reasoning_effort: str | None = None
    reasoning: Raw = NULL
    user: str | None = None


class Message(Exact):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Raw] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Raw] | None = None
    tool_call_id: str = ""
    function_call: Raw = NULL
    audio: Raw = NULL


class Part(Exact):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Raw = NULL
    input_audio: Raw = NULL
    file: Raw = NULL
    cache_control: Raw = NULL


class ImageUrl(Exact):
    url: str
    detail: str | None = None


class InputAudio(Exact):
    data: str
    format: str | None = None


class File(Exact):
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None


class Called(Exact):
    name: str
    arguments: str | None = None


class CalledFreely(Exact):
    name: str
    input: str


class ToolCall(Exact):
    id: str
    type: str | None = None
    function: Raw = NULL
    custom: Raw = NULL


class Tool(Exact):
    type: str | None = None
    function: Raw = NULL
    cache_control: Raw = NULL


class Function(Exact):
    name: str
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class Named(msgspec.Struct):
    name: str = ""


class NamedTool(msgspec.Struct):
    name: str = ""
    function: Named | None = None


class Allowed(msgspec.Struct):
    tools: list[NamedTool]
    mode: Mode | None = None


class Choice(msgspec.Struct):
    type: str = ""
    function: Named | None = None
    allowed_tools: Raw = NULL


class Format(Exact):
    type: str
    json_schema: Raw = NULL


class JsonSchema(Exact):
    name: str | None = None
    schema: Raw = NULL
    strict: bool | None = None


class Thinking(Exact):
    """OpenRouter's."""

    effort: str | None = None
    max_tokens: int | None = None


SETTINGS = Shape(Settings, "body")
MESSAGE = Shape(Message, "messages")
PART = Shape(Part, "messages.content")
IMAGE_URL = Shape(ImageUrl, "image_url")
INPUT_AUDIO = Shape(InputAudio, "input_audio")
FILE = Shape(File, "file")
TOOL_CALL = Shape(ToolCall, "tool_calls")
CALLED = Shape(Called, "tool_calls.function")
CALLED_FREELY = Shape(CalledFreely, "tool_calls.custom")
TOOL = Shape(Tool, "tools")
FUNCTION = Shape(Function, "tools.function")
FORMAT = Shape(Format, "response_format")
JSON_SCHEMA = Shape(JsonSchema, "response_format.json_schema")
THINKING = Shape(Thinking, "reasoning")
