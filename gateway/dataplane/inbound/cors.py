"""Calls from pages in browsers: which origins may, by the operator's list. Pure.

A key that a page holds is read by whoever opens the page, so that none may unless it is listed.
"""

import re
from collections.abc import Mapping
from typing import Final

Head = list[tuple[bytes, bytes]]

ANY: Final = "*"
KEPT_S: Final = b"600"
_NAME_LIST = re.compile(rb"[A-Za-z0-9_, -]{1,2000}")


def is_preflight(method: str, headers: Mapping[bytes, bytes]) -> bool:
    return method == "OPTIONS" and b"access-control-request-method" in headers


def head_of(headers: Mapping[bytes, bytes], origins: frozenset[str]) -> Head:
    """What lets the page that called read an answer; nothing where its origin is not listed."""
    origin = headers.get(b"origin")
    if origin is None or not origins:
        return []
    if ANY not in origins and origin.decode("latin-1") not in origins:
        return [(b"vary", b"origin")]
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def preflight_head(headers: Mapping[bytes, bytes]) -> Head:
    """What a browser asks before it calls; `head_of` says whether it may."""
    head = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-max-age", KEPT_S),
    ]
    wanted = headers.get(b"access-control-request-headers", b"")
    if _NAME_LIST.fullmatch(wanted):
        head.append((b"access-control-allow-headers", wanted))
    return head
