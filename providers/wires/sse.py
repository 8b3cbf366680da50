"""Splitting a byte stream into server-sent events, incrementally and within a bound. Pure.

Events come out whole, with the bytes as they were received, so that they can be passed on
untouched. Only an incomplete tail is kept. Writing events is gateway.dataplane.sse.
"""

from typing import NamedTuple

from providers.errors import ProtocolError

EVENT_BYTES_MAX = 8 * 1024 * 1024


class Event(NamedTuple):
    """`raw` with its framing; `data` is empty for a comment, `name` where none was given."""

    raw: bytes
    data: bytes
    name: bytes


class Splitter:
    """Feed it bytes as they come; line ends may be LF, CR LF or CR."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._tail = b""
        self._event_bytes_max = event_bytes_max

    @property
    def tail(self) -> bytes:
        """What came after the last complete event."""
        return self._tail

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete now; ProtocolError where one grows past the bound."""
        data = self._tail + chunk if self._tail else chunk
        if b"\r" in data:
            data, held = _unix(data)
        else:
            held = b""
        events = []
        start = 0
        while (end := data.find(b"\n\n", start)) >= 0:
            if end > start:
                events.append(_event(data[start : end + 2]))
            start = end + 2
        self._tail = data[start:] + held
        if len(self._tail) > self._event_bytes_max:
            raise ProtocolError(f"an event is longer than {self._event_bytes_max:,} bytes")
        return events

    def end(self) -> list[Event]:
        """The last event where the stream ended without the blank line after it."""
        tail = self._tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n")
        self._tail = b""
        return [_event(tail + b"\n\n")] if tail else []


def _unix(data: bytes) -> tuple[bytes, bytes]:
    """Line ends as LF; a CR at the very end is held back, as an LF may still follow."""
    held = b"\r" if data.endswith(b"\r") else b""
    body = data[: len(data) - len(held)]
    return body.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), held


def _event(raw: bytes) -> Event:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:
        return Event(raw, raw[6:-2], b"")
    name = b""
    lines = []
    for line in raw.split(b"\n"):
        field, colon, value = line.partition(b":")
        if not colon or not field:
            continue
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    return Event(raw, b"\n".join(lines), name)
