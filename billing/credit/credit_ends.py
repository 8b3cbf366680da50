"""Credit that ends, as the registers of Redis know it: what of it has ended by a moment. Pure.

A tenant's register names each credit that ends (from when it pays, until when, what was left of it)
and, per such moment, the debits of requests of before it that this was reckoned with. Beside it
stands, per moment that has come, what requests of before it have spent and hold: noted by the grant
and by the first hold after an end, and kept true by their settles. So what is lost is known at its
moment, without a sweep. `lua/ends.lua` has the same arithmetic, and a test holds the two against
each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

# What a tenant's register says of this, in the order in which `ended_nano` takes it.
FIELDS: Final = ("ends", "posted", "past")


@dataclass(frozen=True, slots=True)
class Ending:
    """`left_nano` of credit, which pays for what is admitted between two moments."""

    from_ms: int
    until_ms: int
    left_nano: int


def pack(endings: Iterable[Ending]) -> str:
    """As a register keeps them: what ends first first."""
    ordered = sorted(endings, key=lambda each: (each.until_ms, each.from_ms))
    return " ".join(f"{each.from_ms} {each.until_ms} {each.left_nano}" for each in ordered)


def pack_moments(nanos: Mapping[int, int]) -> str:
    return " ".join(f"{at_ms} {nano}" for at_ms, nano in sorted(nanos.items()))


def ended_nano(
    ends: bytes | None, posted: bytes | None, past: bytes | None, *, used_nano: int, now_ms: int
) -> int:
    """What has ended by now and is still in the credit. `used_nano`: all that is spent and held."""
    parts = [int(part) for part in (ends or b"").split()]
    pots = [list(pot) for pot in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
    before = dict(_moments(past))
    since, pending = None, 0
    for at_ms, nano in _moments(posted):
        if at_ms > now_ms:
            break
        due = before.get(at_ms, used_nano) - nano
        rest = max(due - pending, 0)
        for pot in pots:
            if since is not None and pot[0] <= since and at_ms <= pot[1]:
                paid = min(pot[2], rest)
                pot[2], rest = pot[2] - paid, rest - paid
        since, pending = at_ms, due
    return sum(left for _, until_ms, left in pots if until_ms <= now_ms)


def _moments(packed: bytes | None) -> list[tuple[int, int]]:
    parts = [int(part) for part in (packed or b"").split()]
    return list(zip(parts[::2], parts[1::2], strict=True))
