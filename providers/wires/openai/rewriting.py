"""An answer's bytes as a client is to see them, where a server's own words will not do.

Finish reasons in this dialect's words, tool calls by the numbers that they are read by, and usage
told once, at the end. Everything else goes on as it came.
"""

import json
from typing import Any

import msgspec

from providers.chat import Chunk
from providers.wires import finish_reasons, lenient_json
from providers.wires.openai import tool_calls
from providers.wires.openai.deltas import Choice


def is_foreign(reason: Any) -> bool:
    return isinstance(reason, str) and reason != "" and reason not in finish_reasons.OPENAI_WORDS


def is_renumbered(choice: Choice, chunk: Chunk) -> bool:
    """Whether its calls are read otherwise than they came: numbers in a stream, empty arguments."""
    said = choice.delta or choice.message
    if chunk.tool_calls is None or said is None or said.function_call:
        return False
    stated = said.tool_calls if isinstance(said.tool_calls, list) else []
    came = [call for call in stated if isinstance(call, dict)]
    if choice.delta is not None:
        return [call.get("index") for call in came] != [c["index"] for c in chunk.tool_calls]
    mine = [call.get("function") for call in chunk.tool_calls]
    return bool(came) and [call.get("function") for call in came] != mine


def with_calls(raw: bytes, chunks: list[Chunk], *, is_event: bool) -> bytes:
    """With its calls as they are read here: SDKs join them by number, and read their JSON."""
    document = json.loads(raw.partition(b"data:")[2] if is_event else raw)
    for choice, chunk in zip(document["choices"], chunks, strict=True):
        if chunk.tool_calls:
            tool_calls.put_into(choice, chunk.tool_calls)
    written = json.dumps(document, separators=(",", ":")).encode()
    return framed(written) if is_event else written


def in_own_words(data: bytes, *, is_event: bool) -> bytes:
    """With finish reasons in this dialect's words where a server said the other's."""
    document = json.loads(data)
    for choice in document["choices"]:
        word = finish_reasons.canonical(choice.get("finish_reason"))
        if word in finish_reasons.OPENAI_WORDS and is_foreign(choice["finish_reason"]):
            choice["finish_reason"] = word
    written = json.dumps(document, separators=(",", ":")).encode()
    return framed(written) if is_event else written


def without_usage(data: bytes) -> bytes:
    """An event that carries usage beside content, without the usage: that is told at the end."""
    fields = lenient_json.fields(data)
    fields.pop("usage", None)
    return msgspec.json.encode(fields)


def framed(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
