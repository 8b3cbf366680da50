"""The Lua scripts of billing, read once, and what a call of one looks like. Pure.

Each is put together from what both sides must agree on (`declared`, written out by `protocol`),
what the scripts share (`common.lua`) and its own text. They are called by EVALSHA only (Redis 6.2
has no functions) and must be loaded on each new connection.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

from billing import registers
from billing.money import PICO_PER_NANO, REGISTER_NANO_MAX
from billing.redis import declared, protocol
from billing.redis.protocol import Answer, Argument, Packed

__all__ = ["ALL", "Argument", "Call", "Script"]

FOLDER: Final = Path(__file__).parent / "lua"
CONSTANTS: Final[dict[str, int | str]] = {
    "REGISTER_MAX": REGISTER_NANO_MAX,
    "PICO_PER_NANO": PICO_PER_NANO,
    "MS_PER_MINUTE": registers.MS_PER_MINUTE,
    "LASTS_MS_MIN": registers.LASTS_MS_MIN,
    "BUSY_RETRY_MS": registers.BUSY_RETRY_MS,
    "SESSION": f":{registers.SESSION}",
    "LIFETIME": f":{registers.LIFETIME}",
}

Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Script(Generic[Told]):
    """`call` takes what it is told by the names of its declaration."""

    name: str
    told: type[Told]
    answers: tuple[Answer[Any], ...]
    source: str
    sha1: str
    _packed: Callable[[Told], Packed] = field(repr=False)

    def call(self, told: Told) -> "Call":
        return Call(self, *self._packed(told))


class Call(NamedTuple):
    """One EVALSHA: the keys and arguments of one run of a script."""

    script: Script[Any]
    keys: list[str]
    args: list[Argument]


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text()


def _read(
    name: str, told: type[Told], *answers: Answer[Any], shared: tuple[str, ...] = ()
) -> Script[Told]:
    source = "\n".join(
        [
            protocol.constants(CONSTANTS),
            protocol.MISPLACED,
            text_of("common"),
            *map(protocol.answering, answers),
            *map(text_of, shared),
            protocol.prelude(name, told),
            text_of(name),
        ]
    )
    # SHA-1 is how Redis names scripts; nothing secret depends on it.
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, told, answers, source, digest, protocol.packer(name, told))


ENDING: Final = ("ends", "open_hold")

COLD: Final = Answer("cold", declared.Nothing)
BEHIND: Final = Answer("behind", declared.Nothing)
LIVE: Final = Answer("live", declared.Nothing)
GONE: Final = Answer("gone", declared.GoneAnswer)
REFUSED: Final = Answer("refused", declared.RefusedAnswer)
PLACED: Final = Answer("placed", declared.PlacedAnswer)
COUNTED: Final = Answer("counted", declared.Nothing)
SETTLED: Final = Answer("settled", declared.SettledAnswer)
RENEWED: Final = Answer("renewed", declared.RenewedAnswer)
VOIDED: Final = Answer("voided", declared.Nothing)
EXPIRED: Final = Answer("expired", declared.ExpiredAnswer)
ACKNOWLEDGED: Final = Answer("acknowledged", declared.AcknowledgedAnswer)
OLDER: Final = Answer("older", declared.Nothing)
WRITTEN: Final = Answer("written", declared.Nothing)
SEEDED: Final = Answer("seeded", declared.SeededAnswer)
COMPARED: Final = Answer("compared", declared.ComparedAnswer)

PLACE: Final = _read(
    "place", declared.Place, COLD, BEHIND, GONE, REFUSED, PLACED, shared=("ends", "minutes")
)
COUNT: Final = _read("count", declared.Counted, COLD, REFUSED, COUNTED, shared=("minutes",))
SETTLE: Final = _read("settle", declared.Settle, COLD, SETTLED, shared=ENDING)
CHECKPOINT: Final = _read("checkpoint", declared.Checkpoint, COLD, GONE, RENEWED)
VOID: Final = _read("void", declared.Void, COLD, GONE, VOIDED, shared=ENDING)
EXPIRE: Final = _read("expire", declared.Expire, COLD, GONE, LIVE, EXPIRED, shared=ENDING)
ACK: Final = _read("ack", declared.Acknowledge, ACKNOWLEDGED)
CREDIT: Final = _read("credit", declared.Credit, OLDER, WRITTEN, shared=("ends",))
SEED: Final = _read("seed", declared.Seed, COLD, SEEDED)
COMPARE: Final = _read("compare", declared.Compare, COLD, COMPARED)

ALL: Final[tuple[Script[Any], ...]] = (
    PLACE,
    SETTLE,
    CHECKPOINT,
    VOID,
    EXPIRE,
    COUNT,
    ACK,
    CREDIT,
    SEED,
    COMPARE,
)
