"""How much one request and one caller may weigh in a board's figures. Pure, and exact.

Rollups keep what was served by caller and by size, in flat maps that merge by addition; the limits
are found when a window is read, so that they hold for the window and not for one of its minutes.
Callers are tenants, folded into a few numbers: what is kept does not grow with them, and whoever
shares a number weighs less, never more. Why and how much is told in docs/leaderboards.md.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

CALLERS: Final = 8
# No request is more than a tenth of a mix, nor more than eight typical ones.
REQUEST_SHARE: Final = Fraction(1, 10)
TYPICAL_MOST: Final = 8
# A caller counts in full up to here; beyond, up to a third of the whole.
CALLER_SHARE: Final = Fraction(1, 3)
CALLER_LEAST: Final = 100

Amounts = Iterable[tuple[Fraction, int]]  # so much, so many times
Kept = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Pile:
    """The served requests of one caller that are of like size: taken as equal to each other."""

    caller: str
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def each(self) -> Fraction:
        return Fraction(self.input_tokens + self.output_tokens, self.requests)


@dataclass(frozen=True, slots=True)
class Weighed:
    """What so many requests used, as far as each may count: per request, times their number."""

    requests: int
    input_tokens: Fraction
    cached_tokens: Fraction
    output_tokens: Fraction


NOTHING: Final = Weighed(0, Fraction(0), Fraction(0), Fraction(0))


def caller_of(tenant_id: int) -> str:
    return str(tenant_id % CALLERS)


def served(
    tenant_id: int, *, input_tokens: int, cached_tokens: int, output_tokens: int
) -> dict[str, int]:
    """One served request as the maps of rollups keep it: sizes are powers of two."""
    size = (input_tokens + output_tokens).bit_length()
    pile = f"{caller_of(tenant_id)}.{size}"
    return {
        f"{pile}.requests": 1,
        f"{pile}.input": input_tokens,
        f"{pile}.cached": cached_tokens,
        f"{pile}.output": output_tokens,
    }


def piles(kept: Kept) -> list[Pile]:
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for key, count in kept.items():
        caller, size, kind = key.split(".")
        found[caller, size][kind] = count
    return [
        Pile(caller, counts["requests"], counts["input"], counts["cached"], counts["output"])
        for (caller, _), counts in found.items()
    ]


def weighed(kept: Kept) -> Weighed:
    """All that was served, with no request and no caller above its limit."""
    found = piles(kept)
    if not found:
        return NOTHING
    typical = _typical(found)
    limit = _request_limit(found, typical)
    parts = [min(Fraction(1), limit / pile.each) if pile.each else Fraction(1) for pile in found]
    volumes: dict[str, Fraction] = defaultdict(Fraction)
    for pile, part in zip(found, parts, strict=True):
        volumes[pile.caller] += pile.requests * pile.each * part
    callers = _parts(volumes, least=CALLER_LEAST * typical)
    counted = sum(pile.requests * callers[pile.caller] for pile in found)
    requests = sum(pile.requests for pile in found)
    # Of all requests again: what each offer asks per request is added to the mix.
    again = Fraction(requests) / counted

    def total(name: str) -> Fraction:
        return sum(
            (
                getattr(pile, name) * part * callers[pile.caller]
                for pile, part in zip(found, parts, strict=True)
            ),
            Fraction(0),
        )

    return Weighed(
        requests,
        total("input_tokens") * again,
        total("cached_tokens") * again,
        total("output_tokens") * again,
    )


def requests_weighed(kept: Kept) -> Fraction:
    """How many served requests these are, where no caller's count for more than its share."""
    counts = _by_caller((pile.caller, pile.requests) for pile in piles(kept))
    parts = _parts(counts, least=Fraction(CALLER_LEAST))
    return sum((counts[caller] * parts[caller] for caller in counts), Fraction(0))


def samples(histogram: Kept) -> dict[str, Fraction]:
    """A histogram that was kept by caller, as one, with no caller's samples above their share."""
    split = [(key.split("."), count) for key, count in histogram.items()]
    parts = _parts(
        _by_caller((caller, count) for (caller, _), count in split), least=Fraction(CALLER_LEAST)
    )
    found: dict[str, Fraction] = defaultdict(Fraction)
    for (caller, bucket), count in split:
        found[bucket] += count * parts[caller]
    return dict(found)


def level(amounts: Amounts, share: Fraction) -> Fraction:
    """The most that each may count so that none is more than that share of all that then count;
    0 where they are too few for that."""
    ordered = sorted(amounts, reverse=True)
    rest = sum((amount * times for amount, times in ordered), Fraction(0))
    cut = 0
    for amount, times in ordered:
        most = share * rest / (1 - share * cut)
        if amount <= most:
            return most
        cut += times
        rest -= amount * times
        if share * cut >= 1:
            break
    return Fraction(0)


def _by_caller(counts: Iterable[tuple[str, int]]) -> dict[str, Fraction]:
    found: dict[str, Fraction] = defaultdict(Fraction)
    for caller, count in counts:
        found[caller] += count
    return found


def _parts(volumes: Mapping[str, Fraction], *, least: Fraction) -> dict[str, Fraction]:
    """The part of each caller's volume that counts."""
    most = max(level(((volume, 1) for volume in volumes.values()), CALLER_SHARE), least)
    return {
        caller: min(Fraction(1), most / volume) if volume else Fraction(1)
        for caller, volume in volumes.items()
    }


def _typical(found: list[Pile]) -> Fraction:
    """The tokens of the median request, where no caller has more than its share of the count."""
    counts = _by_caller((pile.caller, pile.requests) for pile in found)
    parts = _parts(counts, least=Fraction(CALLER_LEAST))
    half = sum((counts[caller] * parts[caller] for caller in counts), Fraction(0)) / 2
    seen = Fraction(0)
    for pile in sorted(found, key=lambda pile: pile.each):
        seen += pile.requests * parts[pile.caller]
        if seen >= half:
            return pile.each
    raise AssertionError("the piles exceed their own sum")


def _request_limit(found: list[Pile], typical: Fraction) -> Fraction:
    """Fewer than ten requests cannot each be a tenth: they count alike."""
    tenth = level(((pile.each, pile.requests) for pile in found), REQUEST_SHARE)
    smallest = min(pile.each for pile in found)
    most = max(tenth, smallest)
    return min(most, TYPICAL_MOST * typical) if typical else most
