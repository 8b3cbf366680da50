"""Answers that come in one JSON document: collected up to a limit, and taken over by a stream
reader whose upstream answered in one piece. Knows no dialect.
"""

from providers.chat import Chunk, ResponseReader
from providers.errors import ProtocolError
from providers.wires.sse import BYTE_ORDER_MARK

WHOLE_BYTES_MAX = 64 * 1024 * 1024


class Body:
    """The document as it arrives."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, data: bytes) -> ProtocolError | None:
        """What is wrong with it, if it grew past the limit; what came so far is let go then."""
        self._length += len(data)
        if self._length > WHOLE_BYTES_MAX:
            self._parts.clear()
            return ProtocolError(f"the answer is longer than {WHOLE_BYTES_MAX:,} bytes")
        self._parts.append(data)
        return None

    def whole(self) -> bytes:
        return b"".join(self._parts).removeprefix(BYTE_ORDER_MARK)


def read_as_stream(stream: ResponseReader, whole: ResponseReader, body: bytes) -> list[Chunk]:
    """Asked for a stream, the upstream answered in one piece; it counts all the same."""
    whole.feed(body)
    chunks = whole.end()
    stream.failure, stream.finished = whole.failure, whole.finished
    stream.usage, stream.usage_problem = whole.usage, whole.usage_problem
    stream.usage_extra, stream.upstream_id = whole.usage_extra, whole.upstream_id
    stream.finish_reason, stream.served_tier = whole.finish_reason, whole.served_tier
    for chunk in chunks:
        chunk.dialect, chunk.raw = "", b""
    return chunks
