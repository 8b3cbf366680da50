"""JSON as servers write it: with half a surrogate pair in an escape, NaN or a byte order mark, all
of which the fast decoder refuses and clients read. Nothing here is on the usual path.
"""

import json
from typing import Any, TypeVar

import msgspec

from providers.json_values import JsonValue

T = TypeVar("T")

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def decode(
    data: bytes, decoder: "msgspec.json.Decoder[T]", *, undecoded: frozenset[str] = frozenset()
) -> T:
    """As the decoder does, or msgspec.DecodeError; `undecoded` names its fields of type Raw."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise  # it is JSON, and of another shape
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.convert(_document(data, undecoded), decoder.type)


def fields(data: bytes) -> dict[str, msgspec.Raw]:
    """The top-level fields of an object, undecoded."""
    try:
        return _fields.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = _document(data, frozenset())
        if not isinstance(document, dict):
            raise msgspec.ValidationError("not an object") from None
        return {name: _raw(value) for name, value in document.items()}


def _document(data: bytes, undecoded: frozenset[str]) -> Any:
    def taken(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue | msgspec.Raw]:
        return {name: _raw(value) if name in undecoded else value for name, value in pairs}

    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=taken)
    except ValueError as wrong:
        raise msgspec.DecodeError(str(wrong)) from None


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value, separators=(",", ":"), default=_decoded).encode())


def _decoded(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw))


def encode(document: object) -> bytes:
    """As the encoder does; half a pair is written as the escape that it came as. Structs must have
    no other names and say no less than their fields."""
    try:
        return _encode(document)
    except UnicodeEncodeError:
        return _encode(_escaped(document))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else msgspec.Raw(json.dumps(value).encode())
    if isinstance(value, msgspec.Struct):
        return _escaped(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {name: _escaped(part) for name, part in value.items() if part is not msgspec.UNSET}
    if isinstance(value, list | tuple):
        return [_escaped(part) for part in value]
    return value


class Halves:
    """Puts together what a server cut in the middle of a pair, per place that it says it at."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], str] = {}

    @property
    def open(self) -> bool:
        """Whether a half is waiting for its other."""
        return bool(self._held)

    def joined(self, at: tuple[int, str], text: str, *, last: bool = False) -> str:
        """The text without a first half that its end leaves open, and with the one left before."""
        held = self._held.pop(at, "") if self._held else ""
        if not held and text.isascii():
            return text
        whole = (held + text).encode("utf-16-le", "surrogatepass")
        text = whole.decode("utf-16-le", "surrogatepass")
        if text and "\ud800" <= text[-1] <= "\udbff" and not last:
            self._held[at] = text[-1]
            return text[:-1]
        return text
