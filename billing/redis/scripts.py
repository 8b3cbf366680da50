"""The Lua scripts of billing, read once, and what a call of one looks like. Pure.

Every script begins with `common.lua`. They are called by EVALSHA only (Redis 6.2 has no
functions) and must be loaded on each new connection.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

FOLDER: Final = Path(__file__).parent / "lua"

Argument: TypeAlias = bytes | str | int


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    source: str
    sha1: str


@dataclass(frozen=True, slots=True)
class Call:
    """One EVALSHA: the keys and arguments of one run of a script."""

    script: Script
    keys: list[bytes | str]
    args: list[Argument]


def _read(name: str) -> Script:
    source = f"{(FOLDER / 'common.lua').read_text()}\n{(FOLDER / f'{name}.lua').read_text()}"
    # SHA-1 is how Redis names scripts; nothing secret depends on it.
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name=name, source=source, sha1=digest)


PLACE: Final = _read("place")
SETTLE: Final = _read("settle")
CHECKPOINT: Final = _read("checkpoint")
VOID: Final = _read("void")
EXPIRE: Final = _read("expire")
ACK: Final = _read("ack")
CREDIT: Final = _read("credit")
COUNT: Final = _read("count")
SEED: Final = _read("seed")
COMPARE: Final = _read("compare")

ALL: Final = (PLACE, SETTLE, CHECKPOINT, VOID, EXPIRE, COUNT, ACK, CREDIT, SEED, COMPARE)
