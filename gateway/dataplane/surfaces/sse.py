"""Writing server-sent events. Reading them is providers.wires.sse."""

from providers.wires import lenient_json

DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = b"text/event-stream; charset=utf-8"


def data(document: object) -> bytes:
    """One unnamed event."""
    return b"data: " + lenient_json.encode(document) + b"\n\n"


def event(name: str, document: object) -> bytes:
    """One named event."""
    return b"event: " + name.encode() + b"\ndata: " + lenient_json.encode(document) + b"\n\n"
