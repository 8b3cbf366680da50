"""The body of Chat Completions and all that it is made of, as they are written."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from providers.conversation import Mode

Raw = msgspec.Raw


class Text(msgspec.Struct, tag="text"):
    text: str


class ImageUrl(msgspec.Struct, omit_defaults=True):
    url: str
    detail: str = ""


class Image(msgspec.Struct, tag="image_url"):
    image_url: ImageUrl


class InputAudio(msgspec.Struct, omit_defaults=True):
    data: str
    format: str = ""


class Audio(msgspec.Struct, tag="input_audio"):
    input_audio: InputAudio


class FileData(msgspec.Struct, omit_defaults=True):
    file_data: str
    filename: str = ""


class File(msgspec.Struct, tag="file"):
    file: FileData


Part = Text | Image | Audio | File


class Asked(msgspec.Struct, omit_defaults=True):
    """A message of whoever asks, or instructs."""

    role: Literal["system", "developer", "user"]
    content: str | list[Part]
    name: str = ""


class Called(msgspec.Struct):
    name: str
    arguments: str


class CalledFreely(msgspec.Struct):
    name: str
    input: str


class Answered(msgspec.Struct, tag_field="role", tag="assistant", omit_defaults=True):
    """What the model said before."""

    content: str | list[Part] | None
    name: str = ""
    refusal: str = ""
    tool_calls: "list[FunctionCall | CustomCall] | None" = None


class FunctionCall(msgspec.Struct):
    id: str
    type: Literal["function"]
    function: Called


class CustomCall(msgspec.Struct):
    id: str
    type: Literal["custom"]
    custom: CalledFreely


class Result(msgspec.Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str | list[Part]


Message = Asked | Answered | Result


class Function(msgspec.Struct, omit_defaults=True):
    name: str
    parameters: Raw
    description: str = ""


class Tool(msgspec.Struct, tag="function"):
    function: Function


class Named(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct, tag="function"):
    function: Named


class AllowedTools(msgspec.Struct):
    mode: Mode
    tools: list[NamedTool]


class Allowed(msgspec.Struct, tag="allowed_tools"):
    allowed_tools: AllowedTools


class JsonSchema(msgspec.Struct, omit_defaults=True):
    name: str
    schema: Raw
    strict: bool = False


class SchemaFormat(msgspec.Struct, tag="json_schema"):
    json_schema: JsonSchema


class ObjectFormat(msgspec.Struct, tag="json_object"):
    pass


class StreamOptions(msgspec.Struct, omit_defaults=True):
    include_usage: bool
    continuous_usage_stats: bool = False


class Body(msgspec.Struct, omit_defaults=True):
    """From `model` on the fields are the wire's to fill in."""

    messages: list[Message]
    temperature: int | float | None = None
    top_p: int | float | None = None
    seed: int | None = None
    presence_penalty: int | float | None = None
    frequency_penalty: int | float | None = None
    stop: Sequence[str] = ()
    tools: list[Tool] | None = None
    tool_choice: Mode | NamedTool | Allowed | None = None
    parallel_tool_calls: bool | None = None
    response_format: SchemaFormat | ObjectFormat | None = None
    user: str = ""
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    cache_salt: str = ""
    priority: int = 0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    service_tier: str = ""
