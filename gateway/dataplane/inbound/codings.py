"""Bodies that come compressed: decoded within the limit that holds for any body.

What would grow beyond it is refused as soon as that is known: a few bytes of a bomb never become
the megabytes that they stand for. Pure.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Final

import zstandard

from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedEncoding

# Of gzip a body may hold several parts, each with a header; who sends more than these plays.
GZIP_PARTS_MAX: Final = 64
# What RFC 9659 demands of every decoder, and no more.
ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
ZSTD_STEP_BYTES: Final = 1024 * 1024
GZIP_BITS, ZLIB_BITS, RAW_BITS = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


def decoded(body: bytes, coding: str, *, bytes_max: int) -> bytes:
    """The body without its Content-Encoding; RequestTooLarge where it is more than this,
    UnsupportedEncoding where the coding is not known here."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    decode = _CODINGS.get(coding)
    if decode is None:
        raise UnsupportedEncoding(
            f"Content-Encoding {coding[:40]} is not known here; send one of {', '.join(KNOWN)}."
        )
    try:
        return decode(body, bytes_max)
    except (zlib.error, zstandard.ZstdError) as wrong:
        raise _broken(f"is not valid {coding}: {wrong}") from None


def _gzip(body: bytes, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    left = bytes_max
    for _ in range(GZIP_PARTS_MAX):
        part, body = _inflated(body, GZIP_BITS, left)
        parts.append(part)
        left -= len(part)
        if not body:
            return b"".join(parts)
    raise _broken("has too many parts")


def _deflate(body: bytes, bytes_max: int) -> bytes:
    """With zlib's header, as the standard says, or without, as some send it."""
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and not (body[0] << 8 | body[1]) % 31
    part, rest = _inflated(body, ZLIB_BITS if has_header else RAW_BITS, bytes_max)
    if rest:
        raise _broken("goes on after its end")
    return part


def _inflated(body: bytes, bits: int, bytes_max: int) -> tuple[bytes, bytes]:
    """One stream, and what comes after it."""
    inflater = zlib.decompressobj(bits)
    part = inflater.decompress(body, bytes_max + 1)
    if len(part) > bytes_max:
        raise too_large(bytes_max)
    if not inflater.eof:
        raise _broken("ends before it is complete")
    return part, inflater.unused_data


def _zstd(body: bytes, bytes_max: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    parts: list[bytes] = []
    size = 0
    with decompressor.stream_reader(body, read_across_frames=True) as reader:
        while part := reader.read(min(ZSTD_STEP_BYTES, bytes_max + 1 - size)):
            parts.append(part)
            size += len(part)
            if size > bytes_max:
                raise too_large(bytes_max)
    return b"".join(parts)


def too_large(bytes_max: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request is larger than {bytes_max} bytes.")


def _broken(what: str) -> InvalidRequest:
    return InvalidRequest(f"The compressed body {what}.", code="broken_body")


_CODINGS: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
KNOWN: Final = ("gzip", "deflate", "zstd")
