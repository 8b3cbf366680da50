"""JSON that others wrote: a caller's schema, the files of a model folder; read by name and type.

What a field must be is said where it is read; one that is missing or something else is refused with
its name. `null` says as little as a field that is not there.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, TypeVar

if TYPE_CHECKING:
    Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
else:
    # msgspec knows no type that contains itself: to it, this is any value.
    Json = object

COUNT_MAX = 2**31 - 1

Value = TypeVar("Value")


class JsonRefused(ValueError):
    """The file holds no JSON object, or a field is missing or not what it must be."""


class Fields:
    """An object's fields; `source` is what a refusal calls it."""

    def __init__(self, raw: Mapping[str, Json], *, source: str) -> None:
        self.raw = raw
        self.source = source

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def count(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        value = self._stated(name, default)
        if type(value) is not int or not least <= value <= COUNT_MAX:
            kind = "a positive number" if least else "a number from 0 on"
            raise self._refused(name, kind, value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._stated(name, default)
        # NaN is neither more nor less than anything.
        if is_number(value) and abs(value) <= sys.float_info.max:
            return value
        raise self._refused(name, "a finite number", value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._stated(name, default)
        if not isinstance(value, bool):
            raise self._refused(name, "true or false", value)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._stated(name, default)
        if not isinstance(value, str):
            raise self._refused(name, "a text", value)
        return value

    def whole_numbers(self, name: str) -> list[int]:
        """A list, or one number by itself; empty where nothing is said."""
        value = self.raw.get(name)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        found = [one for one in listed if type(one) is int and abs(one) <= COUNT_MAX]
        if len(found) < len(listed):
            raise self._refused(name, "whole numbers", value)
        return found

    def within(self, name: str) -> Mapping[str, Json]:
        """The object in this field; an empty one where nothing is said."""
        value = self.raw.get(name)
        if not isinstance(value, dict | None):
            raise self._refused(name, "an object", value)
        return value or {}

    def require(self, name: str, wanted: Json) -> None:
        """Refuse anything but the one value, or none."""
        value = self.raw.get(name)
        if value is not None and value != wanted:
            raise JsonRefused(f"{self.source}: {name} = {value!r} is not supported")

    def _stated(self, name: str, default: Value | None) -> Json | Value:
        value = self.raw.get(name)
        if value is not None:
            return value
        if default is None:
            raise JsonRefused(f"{self.source} lacks {name}")
        return default

    def _refused(self, name: str, kind: str, value: Json) -> JsonRefused:
        return JsonRefused(f"{self.source}: {name} must be {kind}, not {repr(value)[:100]}")


def is_number(value: Json) -> TypeGuard[float]:
    """Whether it is a number, NaN included; `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_object(path: Path) -> dict[str, Json]:
    """The object that a file holds. JsonRefused where it holds none, FileNotFoundError without."""
    try:
        value: Json = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise JsonRefused(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise JsonRefused(f"{path} is not a JSON object")
    return value
