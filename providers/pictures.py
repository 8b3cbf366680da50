"""How large a picture is, from the first bytes of its file. Pure; decodes no picture.

A data URL is looked into where its header says to look: of twenty megabytes of base64 a few
hundred bytes are decoded. What is not known to be PNG, JPEG, GIF or WebP has no known size.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Final

import msgspec

Size = tuple[int, int]
Look = Callable[[int, int], bytes]  # so many bytes from this place on

UNKNOWN: Final[Size] = (0, 0)
JPEG_SEGMENTS_MAX: Final = 200
# Markers of JPEG frames; the rest of C0 to CF are tables.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Picture(msgspec.Struct, frozen=True):
    """A picture of a prompt. `width` and `height` are 0 where it cannot be known; `detail` is
    what the caller asked for, empty where nothing."""

    width: int = 0
    height: int = 0
    detail: str = ""


def of_url(url: str, *, detail: str = "") -> Picture:
    """A picture given as data URL has a size; one at an address has none before it is fetched."""
    head, comma, data = url.partition(",") if url.startswith("data:") else ("", "", "")
    if not comma or not head.endswith(";base64"):
        return Picture(detail=detail)
    return of_base64(data, detail=detail)


def of_base64(data: str, *, detail: str = "") -> Picture:
    """Line breaks between the letters are passed over, as vendors do."""
    if "\n" in data or "\r" in data:
        data = data.replace("\r", "").replace("\n", "")

    def look(start: int, length: int) -> bytes:
        first = start // 3 * 4
        last = -(-(start + length) // 3) * 4
        return base64.b64decode(data[first:last], validate=True)[start % 3 :][:length]

    try:
        width, height = size_of(look)
    except (binascii.Error, ValueError, IndexError):
        width, height = UNKNOWN
    return Picture(width, height, detail)


def size_of(look: Look) -> Size:
    """Width and height; UNKNOWN where the bytes are of another kind. ValueError or IndexError
    where they end too early."""
    head = look(0, 30)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _big(head[16:20]), _big(head[20:24])
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _little(head[6:8]), _little(head[8:10])
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    if head.startswith(b"\xff\xd8"):
        return _jpeg(look)
    return UNKNOWN


def _webp(head: bytes) -> Size:
    kind = head[12:16]
    if kind == b"VP8X":
        return _little(head[24:27]) + 1, _little(head[27:30]) + 1
    if kind == b"VP8L":
        bits = _little(head[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return _little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF
    return UNKNOWN


def _jpeg(look: Look) -> Size:
    """From segment to segment, each of which says how long it is, until the frame's own."""
    at = 2
    for _ in range(JPEG_SEGMENTS_MAX):
        segment = look(at, 9)
        if segment[0] != 0xFF:
            break
        if segment[1] == 0xFF:  # padding
            at += 1
        elif segment[1] in _FRAMES:
            return _big(segment[7:9]), _big(segment[5:7])
        else:
            at += 2 + _big(segment[2:4])
    return UNKNOWN


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
