"""Both sides of what passes between Python and a script, made from its declaration. Pure.

A message is an argument of values, one per list, and one per part of a list where parts are events.
A letter before each value says which it is (the first declared is a, the next b), and each part of
a list says whose register or which number it is:

    KEYS  epoch:{s07}  hold:{s07}:0199…  spend:{s07}:71:key:5:d202603092300
    ARGV  place ae1 b1773144000000 c120 d1
          {…}
          spend
          spend:{s07}:71:key:5:d202603092300 a900 b0

Lua matches each before the script's first use of it: what is missing, too many, in another's place
or of another kind is refused, and nothing has moved. The hot path waits for all of this, so it is
written for speed: few and long patterns, and numbers that are made of digits without a call.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from string import ascii_lowercase
from typing import Any, Final, Generic, TypeAlias, TypeVar

from billing.redis.kinds import Rows, Shape, shape_of

Argument: TypeAlias = bytes | str | int
Packed: TypeAlias = tuple[list[str], list[Argument]]
Part: TypeAlias = bytes | str
Reply: TypeAlias = Sequence[Any]
LETTERS: Final = ascii_lowercase
Told = TypeVar("Told")
Answered = TypeVar("Answered")


class Answer(Generic[Answered]):
    """One of the things that a script may answer: its name, and values at places of their own."""

    def __init__(self, name: str, declared: type[Answered]) -> None:
        self.name = name
        self.shape = shape_of(declared)
        self._said = (name.encode(), name)
        self._read: Callable[[Reply], Answered] = _compiled(f"read_{name}", _read(self.shape))

    def is_said(self, reply: Reply) -> bool:
        return reply[0] in self._said

    def read(self, reply: Reply) -> Answered:
        return self._read(reply)


def text(part: Part) -> str:
    return part.decode() if isinstance(part, bytes) else part


def packer(name: str, declared: type[Told]) -> Callable[[Told], Packed]:
    """What takes a script's message by names and gives its KEYS and ARGV."""
    shape = shape_of(declared)
    keys = [f"told[{key!r}]" for key, _ in shape.keys]
    args = [_values(name, shape, "told")]
    if shape.json:
        args.append(f"told[{shape.json.name!r}]")
    for rows in shape.lists:
        each = f"for number, row in enumerate(told[{rows.name!r}], 1)"
        if rows.shape.keys:
            each = f"for row in told[{rows.name!r}]"
            keys.append(f"*(map(key_of, told[{rows.name!r}]) if told[{rows.name!r}] else ())")
        if rows.shape.json:
            said = _values(f"{rows.name} {{number}}", rows.shape, "row")
            args.append(f"*[{said}.encode() + b' ' + row[{rows.shape.json.name!r}] {each}]")
        else:
            head = "{row['key']}" if rows.shape.keys else "{number}"
            said = _values(f"\\n{head}", rows.shape, "row")
            parts = f"'{rows.name}' + ''.join([{said} {each}])"
            args.append(f"({parts}) if told[{rows.name!r}] else '{rows.name}'")
    body = f"([{', '.join(keys)}], [{', '.join(args)}])"
    return _compiled(f"pack_{name}", ("told", body))


def _values(head: str, shape: Shape, source: str) -> str:
    """The expression of their text."""
    values = [field.kind.written.format(f"{source}['{field.name}']") for field in shape.plain]
    values += [f"len({source}['{rows.name}'])" for rows in shape.lists]
    lettered = (f"{letter}{{{value}}}" for letter, value in zip(LETTERS, values, strict=False))
    return f'f"{" ".join([head, *lettered])}"'


def _read(shape: Shape) -> tuple[str, str]:
    """The expression of an answer's values by name."""
    assert not (shape.lists and shape.words), "one open list, at the end"
    values = [
        f"{field.name!r}: {field.kind.read.format(f'reply[{at}]')}"
        for at, field in enumerate(shape.fields, 1)
    ]
    rest = f"reply[{len(values) + 1}:]"
    values += [f"{name!r}: [text(part) for part in {rest}]" for name in shape.words]
    for rows in shape.lists:
        row = ", ".join(
            f"{field.name!r}: {field.kind.read.format(f'row[{at}]')}"
            for at, field in enumerate(rows.shape.fields)
        )
        values.append(f"{rows.name!r}: [{{{row}}} for row in {rest}]")
    return "reply", f"{{{', '.join(values)}}}"


def _compiled(name: str, source: tuple[str, str]) -> Callable[..., Any]:
    """A function of the hot path, written once when the module is loaded, as a dataclass' are."""
    argument, body = source
    made: Callable[..., Any] = eval(  # its text is made of declarations alone
        compile(f"lambda {argument}: {body}", f"<{name}>", "eval"),
        {"text": text, "key_of": itemgetter("key")},
    )
    return made


# The other side


def prelude(name: str, declared: type) -> str:
    """Lua that takes a message apart, or ends in an error: locals by name, and per list a function
    that gives it as tables."""
    shape = shape_of(declared)
    names = [*(field.name for field in shape.plain), *(f"n_{rows.name}" for rows in shape.lists)]
    keyed = [f"n_{rows.name}" for rows in shape.lists if rows.shape.keys]
    events = [f"n_{rows.name}" for rows in shape.lists if rows.shape.json]
    fixed = 1 + bool(shape.json) + len(shape.lists) - len(events)
    wrong = [
        f"#ARGV ~= {' + '.join([str(fixed), *events])}",
        f"#KEYS ~= {' + '.join([str(len(shape.keys)), *keyed])}",
        *(f"byte({key}) ~= {ord(register.family[0])}" for key, register in shape.keys),
        *(_no_object("ARGV[2]") if shape.json else ()),
    ]
    lines = [
        *(f"local {key} = KEYS[{at}]" for at, (key, _) in enumerate(shape.keys, 1)),
        f"local {', '.join(names)} = match(ARGV[1], '^{name}{_pattern(shape)}$')",
        f"if not {names[0]} then misplaced('{name}') end",
        *(f"n_{rows.name} = n_{rows.name} + 0" for rows in shape.lists),
        *_taken(shape),
        f"if {' or '.join(wrong)} then misplaced('{name}') end",
        *([f"local {shape.json.name} = ARGV[2]"] if shape.json else ()),
    ]
    at_key, at_arg = [str(len(shape.keys))], [str(1 + bool(shape.json))]
    for rows in shape.lists:
        if rows.shape.keys:
            lines.append(f"local at_{rows.name} = {' + '.join(at_key)}")
        lines += _list(rows, " + ".join(at_arg))
        at_arg.append(f"n_{rows.name}" if rows.shape.json else "1")
        if rows.shape.keys:
            at_key.append(f"n_{rows.name}")
    return "\n".join(lines)


def _pattern(shape: Shape) -> str:
    patterns = [*(field.kind.pattern for field in shape.plain), *("(%d+)" for _ in shape.lists)]
    return "".join(f" {letter}{each}" for letter, each in zip(LETTERS, patterns, strict=False))


def _taken(shape: Shape) -> list[str]:
    """Texts that matched become values; one that no register could hold is refused, for doubles
    are exact only below."""
    kinds = [(field.name, field.kind) for field in shape.plain]
    changed = [f"{name} = {kind.taken.format(name)}" for name, kind in kinds if kind.taken != "{0}"]
    return changed + [
        f"if {kind.beyond.format(name)} then beyond('{name}') end"
        for name, kind in kinds
        if kind.beyond
    ]


def _no_object(value: str) -> list[str]:
    return [f"byte({value}) ~= {ord('{')}", f"byte({value}, -1) ~= {ord('}')}"]


def _list(rows: Rows, at_arg: str) -> list[str]:
    """A part says which one it is: by its register, or by its number."""
    body = _events(rows, at_arg) if rows.shape.json else _parts(rows, at_arg)
    return [
        f"local function told_{rows.name}()",
        "  local told = {}",
        *body,
        "  return told",
        "end",
    ]


def _parts(rows: Rows, at_arg: str) -> list[str]:
    names = [field.name for field in rows.shape.plain]
    first = "key" if rows.shape.keys else "number"
    is_other = f"key ~= KEYS[at_{rows.name} + i]" if rows.shape.keys else "number + 0 ~= i"
    pattern = f"^\\n({'%S+' if rows.shape.keys else '%d+'}){_pattern(rows.shape)}()"
    return [
        f"  local said, after = ARGV[{at_arg} + 1], {len(rows.name) + 1}",
        f"  if sub(said, 1, {len(rows.name)}) ~= '{rows.name}' then misplaced('{rows.name}') end",
        f"  for i = 1, n_{rows.name} do",
        f"    local {', '.join([first, *names])}",
        f"    {', '.join([first, *names, 'after'])} = match(said, '{pattern}', after)",
        f"    if not after or {is_other} then misplaced('{rows.name}') end",
        *_kept(rows),
        "  end",
        f"  if after ~= #said + 1 then misplaced('{rows.name}') end",
    ]


def _events(rows: Rows, at_arg: str) -> list[str]:
    names = [field.name for field in rows.shape.plain]
    pattern = f"^{rows.name} (%d+){_pattern(rows.shape)} (){{"
    assert rows.shape.json is not None
    json = rows.shape.json.name
    return [
        f"  for i = 1, n_{rows.name} do",
        f"    local said = ARGV[{at_arg} + i]",
        f"    local {', '.join(['number', *names, json])} = match(said, '{pattern}')",
        f"    if not number or number + 0 ~= i or byte(said, -1) ~= {ord('}')} then",
        f"      misplaced('{rows.name}') end",
        f"    {json} = sub(said, {json})",
        *_kept(rows),
        "  end",
    ]


def _kept(rows: Rows) -> list[str]:
    """A part that matched, as a table."""
    names = [*(key for key, _ in rows.shape.keys), *(field.name for field in rows.shape.fields)]
    table = ", ".join(f"{name} = {name}" for name in names)
    return [f"    {line}" for line in (*_taken(rows.shape), f"told[i] = {{{table}}}")]


def answering(answer: Answer[Any]) -> str:
    """Lua that answers by names; a whole number leaves as Redis' own integer."""
    shape = answer.shape
    values = [f"'{answer.name}'", *_answered(shape, "said")]
    values += [f"unpack(said.{name})" for name in shape.words]
    values += [f"unpack(said.{rows.name})" for rows in shape.lists]
    lines = [f"local function {answer.name}(said) return {{{', '.join(values)}}} end"]
    for rows in shape.lists:
        row = ", ".join(_answered(rows.shape, "said"))
        lines.append(f"local function {answer.name}_row(said) return {{{row}}} end")
    return "\n".join(lines)


def _answered(shape: Shape, source: str) -> list[str]:
    return [field.kind.answered.format(f"{source}.{field.name}") for field in shape.fields]


def constants(values: Mapping[str, int | str]) -> str:
    """What the scripts know as Python does; Python's quotes are Lua's."""
    return "\n".join(f"local {name} = {value!r}" for name, value in values.items())


MISPLACED: Final = """
local KEYS, ARGV, byte, match, sub = KEYS, ARGV, string.byte, string.match, string.sub
local function misplaced(what) error('misplaced: ' .. what) end
local function beyond(what) error('not a whole number below 2^52: ' .. what) end
"""
