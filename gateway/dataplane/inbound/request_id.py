"""Request ids: UUIDv7, made by us. Their time part decides the day of the usage event."""

import secrets

_VERSION_7 = 7 << 76
_VARIANT = 2 << 62


def new_request_id(now_ms: int) -> str:
    """A UUIDv7 in canonical text: 48 bits of `now_ms`, then 74 random bits."""
    noise = secrets.randbits(74)
    value = (now_ms << 80) | _VERSION_7 | ((noise >> 62) << 64) | _VARIANT | (noise & (2**62 - 1))
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
