"""What a value is that goes between Python and a script: how it is written, and how it is known.

A script takes a message only where each value stands in its place and is of its kind. What it
answers goes by place; both sides take the places from one declaration. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Kind:
    """`pattern`: what Lua takes for one. `{0}` stands for the value: `written` is what Python puts
    into a message, `taken` what Lua makes of it and `beyond` when that is too much; `answered` is
    what Lua puts into an answer, and `read` what Python makes of that."""

    pattern: str
    written: str = "{0}"
    taken: str = "{0}"
    beyond: str = ""
    answered: str = "{0}"
    read: str = "text({0})"


@dataclass(frozen=True, slots=True)
class Register:
    """The name of a register, which goes among KEYS and begins with its family."""

    family: str


Count: TypeAlias = Annotated[
    int, Kind("(%d+)", taken="{0} + 0", beyond="{0} >= REGISTER_MAX", read="int({0})")
]
Whole: TypeAlias = Annotated[
    int,
    Kind(
        "(%-?%d+)",
        taken="{0} + 0",
        beyond="{0} >= REGISTER_MAX or {0} <= -REGISTER_MAX",
        read="int({0})",
    ),
]
Maybe: TypeAlias = Annotated[
    int | None,
    Kind(
        "(%d*)",
        written="'' if {0} is None else {0}",
        taken="{0} ~= '' and {0} + 0 or nil",
        beyond="{0} and {0} >= REGISTER_MAX",
        answered="{0} or ''",
        read="int({0}) if {0} not in (b'', '') else None",
    ),
]
Flag: TypeAlias = Annotated[
    bool,
    Kind(
        "([01])",
        written="+{0}",
        taken="{0} == '1'",
        answered="{0} and '1' or '0'",
        read="{0} in (b'1', '1')",
    ),
]
# No white space in it; it may be empty.
Word: TypeAlias = Annotated[str, Kind("(%S*)")]
RequestId: TypeAlias = Annotated[str, Kind("(%x+%-%x+%-%x+%-%x+%-%x+)")]
# The first part alone is its first entry.
EntryId: TypeAlias = Annotated[str, Kind("(%d+%-?%d*)")]
Numbers: TypeAlias = Annotated[str, Kind("([%-%d ]*)")]
# Bytes of an object, the last that is declared: everything may stand in it.
Json: TypeAlias = Annotated[bytes, Kind("")]

JSON: Final = get_args(Json)[1]


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of equal parts; each goes in an argument of its own, and may have a register."""

    name: str
    shape: "Shape"


@dataclass(frozen=True, slots=True)
class Shape:
    """A declaration taken apart: its registers, values and lists, each in the order declared."""

    keys: tuple[tuple[str, Register], ...]
    fields: tuple[Field, ...]
    lists: tuple[Rows, ...]
    words: tuple[str, ...]  # lists of plain words, in answers

    @property
    def plain(self) -> tuple[Field, ...]:
        return self.fields[:-1] if self.json else self.fields

    @property
    def json(self) -> Field | None:
        last = self.fields[-1] if self.fields else None
        return last if last and last.kind is JSON else None


def shape_of(declared: type) -> Shape:
    parts = list(_parts_of(declared))
    shape = Shape(
        keys=tuple((name, part) for name, part in parts if isinstance(part, Register)),
        fields=tuple(Field(name, part) for name, part in parts if isinstance(part, Kind)),
        lists=tuple(Rows(name, part) for name, part in parts if isinstance(part, Shape)),
        words=tuple(name for name, part in parts if part is str),
    )
    assert all(field.kind is not JSON for field in shape.fields[:-1]), declared
    return shape


def _parts_of(declared: type) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(declared, include_extras=True).items():
        if get_origin(hint) is list:
            part = get_args(hint)[0]
            yield name, part if part is str else shape_of(part)
        else:
            yield name, get_args(hint)[1]
