"""Writing server-sent events. Reading them is providers.wires.sse."""

from typing import Any

from providers.wires import loose_json

DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = b"text/event-stream; charset=utf-8"
KEEP_ALIVE = b": tokenhouse\n\n"


def data(document: Any) -> bytes:
    """One unnamed event."""
    return b"data: " + loose_json.encode(document) + b"\n\n"


def event(name: str, document: Any) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + loose_json.encode(document) + b"\n\n"
