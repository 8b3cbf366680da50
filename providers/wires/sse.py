"""Splitting a byte stream into server-sent events, incrementally and within a bound. Pure.

Events come out whole, with the bytes as they were received, so that they can be passed on
untouched. Only an incomplete tail is kept. Writing events is gateway.dataplane.surfaces.sse.
"""

from typing import NamedTuple

from providers.errors import ProtocolError

EVENT_BYTES_MAX = 8 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """`raw` with its framing; `data` is empty for a comment, `name` where none was given."""

    raw: bytes
    data: bytes
    name: bytes

    def in_one_line(self) -> "Event":
        """The event of JSON with its data in one line: many clients read no other. A line break
        outside of strings is white space there, and within them there is none."""
        if b"\n" not in self.data:
            return self
        data = self.data.replace(b"\n", b" ")
        named = b"event: " + self.name + b"\n" if self.name else b""
        return Event(named + b"data: " + data + b"\n\n", data, self.name)


class Splitter:
    """Feed it bytes as they come; line ends may be LF, CR LF or CR."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._tail = bytearray()
        self._searched = 0  # the tail holds no event end before this
        self._held = b""  # a CR whose LF may still come
        self._event_bytes_max = event_bytes_max
        self._begun = False
        self._mark = b""  # the beginning, while it may still become a byte order mark

    @property
    def tail(self) -> bytes:
        """What came after the last complete event."""
        return bytes(self._tail)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete now; ProtocolError where one grows past the bound.

        Linear in the bytes fed, however small the pieces are in which a long event comes.
        """
        if not self._begun:
            chunk = self._without_mark(chunk)
        if self._held or b"\r" in chunk:
            chunk, self._held = _unix(self._held + chunk)
        if not self._tail:
            return self._split(chunk)
        self._tail += chunk
        if self._tail.find(b"\n\n", self._searched) < 0:
            self._keep_within_bound()
            return []
        data = bytes(self._tail)
        return self._split(data)

    def _without_mark(self, chunk: bytes) -> bytes:
        """A stream may begin with a byte order mark, which is no part of its first event."""
        begin = self._mark + chunk
        if len(begin) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(begin):
            self._mark = begin
            return b""
        self._begun, self._mark = True, b""
        return begin.removeprefix(BYTE_ORDER_MARK)

    def _split(self, data: bytes) -> list[Event]:
        events = []
        start = 0
        while (end := data.find(b"\n\n", start)) >= 0:
            if end > start:
                events.append(_event(data[start : end + 2]))
            start = end + 2
        self._tail = bytearray(data[start:])
        self._keep_within_bound()
        return events

    def _keep_within_bound(self) -> None:
        self._searched = max(0, len(self._tail) - 1)
        if len(self._tail) > self._event_bytes_max:
            raise ProtocolError(f"an event is longer than {self._event_bytes_max:,} bytes")

    def end(self) -> list[Event]:
        """The last event where the stream ended without the blank line after it."""
        tail = bytes(self._tail).strip(b"\n")
        self._tail.clear()
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
        if line.startswith(b"{") and b'"error"' in line:
            # Some servers break a stream off with the bare document.
            return Event(raw, line, b"error")
        field, colon, value = line.partition(b":")
        if not colon or not field:
            continue
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
        elif field == b"error":  # llama.cpp's older servers
            name = field
            lines.append(value)
    return Event(raw, b"\n".join(lines), name)
