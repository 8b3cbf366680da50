"""Writing server-sent events. Reading them is providers.wires.sse."""

from typing import Any

from providers.wires import lenient_json

DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = b"text/event-stream; charset=utf-8"


def data(document: Any) -> bytes:
    """One unnamed event."""
    return b"data: " + lenient_json.encode(document) + b"\n\n"


def event(name: str, document: Any) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + lenient_json.encode(document) + b"\n\n"
