"""JSON objects of a known shape, and the names of whatever else stands in them.

A reader says nothing wrong by leaving out what it does not know, as long as the caller is told.
"""

from collections.abc import Mapping, Set
from typing import Final, Generic, TypeVar

import msgspec

from providers.conversation import CacheMark
from providers.errors import CannotSay
from providers.wires.body_fields import NOTHING

T = TypeVar("T", bound=msgspec.Struct)
# An object that is not there, or said to be none.
NULL: Final = msgspec.Raw(b"null")

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Shape(Generic[T]):
    """Objects as `shape` has them, which must forbid unknown fields; `path` is what a caller calls
    such an object."""

    def __init__(self, shape: type[T], path: str) -> None:
        self._decode = msgspec.json.Decoder(shape).decode
        self._names = frozenset(shape.__struct_encode_fields__)
        self._path = path

    def read(self, raw: msgspec.Raw | bytes, unread: set[str]) -> T:
        """CannotSay where it is no such object. What else it holds is added to `unread`."""
        try:
            return self._decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            known = self._known(raw, unread)
            if known is None:
                raise _unreadable(self._path, wrong) from None
        try:
            return self._decode(known)
        except (msgspec.DecodeError, RecursionError) as wrong:
            raise _unreadable(self._path, wrong) from None

    def _known(self, raw: msgspec.Raw | bytes, unread: set[str]) -> bytes | None:
        """The object without what is not of its shape; None where all of it is."""
        try:
            fields = _fields(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        others = fields.keys() - self._names
        unread.update(f"{self._path}.{name}" for name in left(fields, self._names))
        return _encode({n: fields[n] for n in fields if n in self._names}) if others else None


def left(fields: Mapping[str, msgspec.Raw], known: Set[str]) -> list[str]:
    """The names of those that are not known and say something."""
    return [
        name for name, value in fields.items() if name not in known and bytes(value) not in NOTHING
    ]


def given(raw: msgspec.Raw) -> bool:
    return bytes(raw) != b"null"


def said(raw: msgspec.Raw) -> msgspec.Raw | None:
    """None where it is empty."""
    return None if bytes(raw) in NOTHING else raw


def _unreadable(path: str, wrong: Exception) -> CannotSay:
    return CannotSay(f"{path} cannot be put into this provider's terms: {wrong}", param=path)


class _Cache(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    ttl: str | None = None


_cache = Shape(_Cache, "cache_control")


def cache_mark(raw: msgspec.Raw, unread: set[str]) -> CacheMark | None:
    """As Anthropic writes it, and OpenRouter in the other dialect."""
    return CacheMark(ttl=_cache.read(raw, unread).ttl or "") if given(raw) else None
