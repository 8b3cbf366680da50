"""What an answer in Anthropic's dialect is made of, as it is written: content blocks and events."""

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dataplane.surfaces import usage_block
from providers.json_values import JsonObject


# Made for every event of a stream, and in no cycle: the collector need not look at them.
class Text(msgspec.Struct, gc=False):
    type: str
    text: str


class Thinking(msgspec.Struct):
    type: str
    thinking: str
    signature: str = ""


class ToolUse(msgspec.Struct):
    type: str
    id: str
    name: str
    input: JsonObject


Block = Text | Thinking | ToolUse


class ThinkingDelta(msgspec.Struct, gc=False):
    type: str
    thinking: str


class JsonDelta(msgspec.Struct, gc=False):
    type: str
    partial_json: str


Piece = Text | ThinkingDelta | JsonDelta


class BlockEvent(msgspec.Struct, gc=False):
    """One of a block: its beginning, a piece of it, its end."""

    type: str
    index: int
    content_block: Block | UnsetType = UNSET
    delta: Piece | UnsetType = UNSET


TEXT = Text("text", "")
THINKING = Thinking("thinking", "")


class InputUsage(msgspec.Struct):
    input_tokens: int
    output_tokens: int


class Message(msgspec.Struct):
    id: str
    type: str
    role: str
    model: str
    content: list[Block]
    stop_reason: str | None
    stop_sequence: str | None
    usage: InputUsage | usage_block.Written
    tokenhouse: usage_block.Own | UnsetType = UNSET


class MessageStart(msgspec.Struct):
    type: str
    message: Message


class Ending(msgspec.Struct):
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Error(msgspec.Struct):
    type: str
    message: str
    code: str


class ErrorEvent(msgspec.Struct):
    type: str
    error: Error
    usage: usage_block.Written | UnsetType = UNSET


class Bare(msgspec.Struct):
    type: str
