"""The content blocks of Anthropic's Messages API, as they are written."""

import msgspec

from providers.conversation import CacheMark

PDF = "application/pdf"


class CacheControl(msgspec.Struct, tag="ephemeral", omit_defaults=True):
    ttl: str = ""


class Base64(msgspec.Struct, tag="base64"):
    media_type: str
    data: str


class Url(msgspec.Struct, tag="url"):
    url: str


class PlainText(msgspec.Struct, tag="text"):
    data: str
    media_type: str = "text/plain"


class Content(msgspec.Struct, tag="content"):
    content: "list[Block]"


Source = Base64 | Url


class Text(msgspec.Struct, tag="text", omit_defaults=True):
    text: str
    cache_control: CacheControl | None = None


class Image(msgspec.Struct, tag="image", omit_defaults=True):
    source: Source
    cache_control: CacheControl | None = None


class Citations(msgspec.Struct):
    enabled: bool


class Document(msgspec.Struct, tag="document", omit_defaults=True):
    source: Source | PlainText | Content
    title: str = ""
    context: str = ""
    citations: Citations | None = None
    cache_control: CacheControl | None = None


class ToolUse(msgspec.Struct, tag="tool_use", omit_defaults=True):
    id: str
    name: str
    input: msgspec.Raw
    cache_control: CacheControl | None = None


class ToolResult(msgspec.Struct, tag="tool_result", omit_defaults=True):
    tool_use_id: str
    content: "str | list[Block]"
    is_error: bool = False
    cache_control: CacheControl | None = None


class Thinking(msgspec.Struct, tag="thinking"):
    thinking: str
    signature: str


class RedactedThinking(msgspec.Struct, tag="redacted_thinking"):
    data: str


Block = Text | Image | Document | ToolUse | ToolResult | Thinking | RedactedThinking


def mark(cache: CacheMark | None) -> CacheControl | None:
    return None if cache is None else CacheControl(cache.ttl)


def is_marked(block: Block) -> bool:
    return isinstance(block, Text) and block.cache_control is not None
