"""Names inside messages that somebody else's reader of JSON could take for others.

We read the last of two equal names, exactly as they are written. A server that reads the first, or
takes `URL` for `url`, would see another prompt than the one that was checked, bounded and priced.
So where a body could hold an address, each name of its messages must be the only one of its kind.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.errors import InvalidRequest
from providers.wires import body_fields

# What messages, their parts and media are made of; what a tool is called with is anybody's.
_NAMES: Final = frozenset(
    "role content type text name image_url video_url audio_url input_audio url uri data file "
    "file_data file_id file_url source media_type detail format uuid image video audio".split()
)
_INTO: Final = frozenset(
    "content source image_url video_url audio_url input_audio file image video audio".split()
)
_ADDRESS_MARKS: Final = (b'url"', b'uri"', b"\\u004", b"\\u005", b"\\u006", b"\\u007")
_SHOWN_MAX: Final = 40


class _Object(list[tuple[str, Any]]):
    """A JSON object as its pairs, in order, nothing merged."""


def check(body: Mapping[str, msgspec.Raw], *names: str) -> None:
    """InvalidRequest where these fields hold names that are there twice, in whatever spelling."""
    for name in names:
        raw = bytes(body.get(name, b"null"))
        lowered = raw.lower()
        if any(mark in lowered for mark in _ADDRESS_MARKS):
            _walk(json.loads(raw, object_pairs_hook=_Object), name)


def _walk(value: Any, path: str) -> None:
    if isinstance(value, _Object):
        _check_names([name for name, _ in value], path)
        for name, inner in value:
            if name in _INTO:
                _walk(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            _walk(inner, f"{path}[{at}]")


def _check_names(names: list[str], path: str) -> None:
    seen = set()
    for name in names:
        as_read = body_fields.folded(name)
        if as_read in seen:
            raise _refused(name, path, "is there twice, in this or another spelling")
        if as_read in _NAMES and name not in _NAMES:
            raise _refused(
                name, path, f"is not the name `{as_read}`, which some servers take it for"
            )
        seen.add(as_read)


def _refused(name: str, path: str, why: str) -> InvalidRequest:
    shown = "".join(c for c in name if c.isprintable())[:_SHOWN_MAX]
    return InvalidRequest(f"`{path}`: `{shown}` {why}.", param=path, code="ambiguous_field")
