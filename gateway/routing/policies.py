"""The policies: what each one puts first. Pure; a smaller key is a better offer.

A policy scores offers that already passed every filter. Ties are broken by expected cost,
then by sku, so that the same request on the same snapshot always ranks the same way.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from billing.kinds import Listed
from billing.money import usd_json
from providers.chat import OfferView


class PolicyKind(Listed):
    """What a tenant may choose. Tables, forms, the API and declared files take their words here."""

    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    IN_HOUSE_FIRST = "in_house_first"
    PINNED = "pinned"

    @property
    def label(self) -> str:
        return EXPLAINED[self][0]


CHEAPEST: Final = PolicyKind.CHEAPEST.value
FASTEST: Final = PolicyKind.FASTEST.value
IN_HOUSE_FIRST: Final = PolicyKind.IN_HOUSE_FIRST.value
PINNED: Final = PolicyKind.PINNED.value
# Chosen by callers for one request alone.
LOWEST_TTFT: Final = "lowest_ttft"

# What each is called, and how it chooses, for people.
EXPLAINED: Final[Mapping[PolicyKind, tuple[str, str]]] = {
    PolicyKind.CHEAPEST: (
        "Cheapest",
        "The lowest expected cost of this very request: its tokens at each offer's price.",
    ),
    PolicyKind.FASTEST: (
        "Fastest",
        "The earliest last token, from what was measured in the last hour: time to the first "
        "token, then tokens per second.",
    ),
    PolicyKind.IN_HOUSE_FIRST: (
        "In-house first",
        "Our own workers, cheapest first; outside sellers only when none of them can take it.",
    ),
    PolicyKind.PINNED: (
        "Pinned",
        "Only the offers you name, in the order you name them.",
    ),
}

# With fewer samples a measured speed says nothing yet.
SPEED_SAMPLE_MIN = 5
UNMEASURED = float("inf")


class Speed(Protocol):
    """How fast an offer was lately, on the gateway's clock."""

    @property
    def ttft_ms_p50(self) -> float | None: ...

    @property
    def output_tps_p50(self) -> float | None: ...

    @property
    def sample(self) -> int: ...


Speeds = Mapping[int, Speed]


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A tenant's or team's policy as the snapshot froze it. Ceilings are per token."""

    kind: str = CHEAPEST
    pinned_skus: tuple[str, ...] = ()
    providers_allowed: frozenset[str] = frozenset()
    max_input_pico: int | None = None
    max_output_pico: int | None = None
    allow_fallbacks: bool = True


class Scoring(msgspec.Struct, frozen=True):
    """What a policy looks at beside the offer: the request's size and the measured speeds."""

    output_expected: int
    speeds: Speeds
    pinned: Mapping[str, int]


def score(kind: str, offer: OfferView, expected_pico: int, scoring: Scoring) -> tuple[float, str]:
    """The primary key of an offer under a policy, and the reason in words."""
    if kind in (FASTEST, LOWEST_TTFT):
        return _speed(kind, offer, scoring)
    if kind == CHEAPEST:
        score = float(expected_pico)
    elif kind == IN_HOUSE_FIRST:
        score = 0.0 if offer.in_house else 1.0
    else:
        score = float(scoring.pinned[offer.sku])
    return score, words(kind, score, expected_pico)


def words(kind: str, score: float, expected_pico: int) -> str:
    """A score's reason, also where only the score was kept: then without a speed's samples."""
    if kind in (FASTEST, LOWEST_TTFT):
        if not math.isfinite(score):
            return "speed not known yet"
        if kind == FASTEST:
            return f"about {score:,.0f} ms for the whole answer"
        return f"first token after {score:,.0f} ms at the median"
    cost = f"costs about ${usd_json(expected_pico).decode()}"
    if kind == IN_HOUSE_FIRST:
        return f"external, {cost}" if score else f"in-house, {cost}"
    return f"pinned as number {score + 1:.0f}, {cost}" if kind == PINNED else cost


def _speed(kind: str, offer: OfferView, scoring: Scoring) -> tuple[float, str]:
    speed = scoring.speeds.get(offer.id)
    if speed is None or speed.sample < SPEED_SAMPLE_MIN or speed.ttft_ms_p50 is None:
        samples = 0 if speed is None else speed.sample
        return UNMEASURED, f"speed not known yet ({samples} of {SPEED_SAMPLE_MIN} samples)"
    ttft_ms = speed.ttft_ms_p50
    if kind == LOWEST_TTFT:
        return ttft_ms, words(kind, ttft_ms, 0)
    if not speed.output_tps_p50:
        return UNMEASURED, "output speed not known yet"
    whole_ms = ttft_ms + 1000 * scoring.output_expected / speed.output_tps_p50
    return whole_ms, (
        f"about {whole_ms:,.0f} ms for {scoring.output_expected} tokens "
        f"(first token {ttft_ms:,.0f} ms, {speed.output_tps_p50:,.1f} tokens/s)"
    )


def effective(policy: PolicyView, sort: str) -> str:
    """The policy in force: the caller's `sort` may replace it, but never lift a pin."""
    if policy.kind == PINNED or not sort:
        return policy.kind
    return {"price": CHEAPEST, "throughput": FASTEST, "latency": LOWEST_TTFT}.get(sort, policy.kind)
