"""What of an answer cannot be read, and what of it callers must not read. Knows no dialect."""

import json
from typing import Any

from providers.errors import StreamBroken
from providers.wires.error_answers import is_internal

# Events of a stream that cannot be read, before it has said anything.
MALFORMED_MAX = 100
# What servers and proxies say to keep a connection alive, where they should send a comment.
_HEARTBEATS = frozenset({b"ping", b"keep-alive", b"keepalive", b"heartbeat", b"null", b"[]", b'""'})


def is_heartbeat(data: bytes) -> bool:
    return data.strip().lower() in _HEARTBEATS


def unreadable() -> StreamBroken:
    """An event that may have been content: without it the answer is not whole."""
    return StreamBroken("an event of the answer could not be read", after_first_byte=True)


def with_model_name(raw: bytes, said: Any, ours: str) -> bytes:
    """With the catalogue's name for the model where the server's own is a path in its house."""
    if not isinstance(said, str) or not is_internal(said):
        return raw
    return raw.replace(json.dumps(said).encode(), json.dumps(ours).encode(), 1)
