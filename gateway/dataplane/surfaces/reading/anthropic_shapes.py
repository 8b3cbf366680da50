"""The objects of a Messages request, as far as a conversation has words for them."""

from typing import Literal

import msgspec

from gateway.dataplane.surfaces.reading.shapes import NULL, Shape

Raw = msgspec.Raw
Number = int | float


class Exact(msgspec.Struct, forbid_unknown_fields=True):
    """Refuses a name that it does not know."""


class Settings(Exact):
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tool_choice: Raw = NULL
    output_config: Raw = NULL
    thinking: Raw = NULL
    metadata: Raw = NULL


class Message(Exact):
    role: Literal["user", "assistant", "system"]
    content: str | list[Raw]


class Kind(msgspec.Struct):
    type: str


class ToolKind(msgspec.Struct):
    type: str | None = None


class Text(Exact):
    type: str
    text: str
    cache_control: Raw = NULL
    citations: Raw = NULL


class Media(Exact):
    """An image or a document."""

    type: str
    source: Raw
    title: str | None = None
    context: str | None = None
    citations: Raw = NULL
    cache_control: Raw = NULL


class Source(Exact):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: str | list[Raw] | None = None


class Citations(Exact):
    enabled: bool = False


class ToolUse(Exact):
    type: str
    id: str
    name: str
    input: Raw = NULL
    cache_control: Raw = NULL


class ToolResult(Exact):
    type: str
    tool_use_id: str
    content: str | list[Raw] | None = None
    is_error: bool | None = None
    cache_control: Raw = NULL


class Thought(Exact):
    type: str
    thinking: str = ""
    signature: str | None = None
    data: str | None = None


class Tool(Exact):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: Raw = NULL
    strict: bool | None = None
    cache_control: Raw = NULL


class Choice(Exact):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputConfig(Exact):
    format: Raw = NULL
    effort: str | None = None


class Format(Exact):
    type: str
    schema: Raw = NULL


class Thinking(Exact):
    type: str
    budget_tokens: int | None = None


class Metadata(Exact):
    user_id: str | None = None


SETTINGS = Shape(Settings, "body")
MESSAGE = Shape(Message, "messages")
TEXT = Shape(Text, "text")
IMAGE = Shape(Media, "image")
DOCUMENT = Shape(Media, "document")
SOURCE = Shape(Source, "source")
CITATIONS = Shape(Citations, "citations")
TOOL_USE = Shape(ToolUse, "tool_use")
TOOL_RESULT = Shape(ToolResult, "tool_result")
THOUGHT = Shape(Thought, "messages.thinking")
TOOL = Shape(Tool, "tools")
CHOICE = Shape(Choice, "tool_choice")
OUTPUT_CONFIG = Shape(OutputConfig, "output_config")
FORMAT = Shape(Format, "output_config.format")
THINKING = Shape(Thinking, "thinking")
METADATA = Shape(Metadata, "metadata")
