"""When to draft and how much: expected tokens per second of the whole step, measured both ways.

Acceptance is learned per request and per evidence class, also from drafts that were proposed and
not sent: comparing them with what came costs nothing, so a request at length 0 can come back.
Cost is the measured time of a step by its number of tokens.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

PRIOR_ACCEPTANCE = 0.5
REQUEST_WEIGHT = 0.15
ENGINE_WEIGHT = 0.02
# A longer step must promise this much more than a shorter one: timings are not that exact.
MARGIN = 1.02
CURVE_TOKENS = (1, 2, 4, 8, 16, 32, 64)

TimeStep = Callable[[int], float]


class CostCurve:
    """Seconds of a step by its token count: linear between measured points, never falling."""

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        assert points
        self._tokens = [tokens for tokens, _ in points]
        self._seconds: list[float] = []
        for _, seconds in points:
            floor = self._seconds[-1] if self._seconds else 0.0
            self._seconds.append(max(seconds, floor))

    @classmethod
    def measured(cls, time_step: TimeStep, *, repeats: int, limit: int) -> "CostCurve":
        """Minimum of `repeats` timings at each size up to `limit` tokens."""
        sizes = [tokens for tokens in CURVE_TOKENS if tokens <= limit]
        return cls([(size, min(time_step(size) for _ in range(repeats))) for size in sizes])

    def seconds(self, tokens: int) -> float:
        index = bisect_left(self._tokens, tokens)
        if index < len(self._tokens) and self._tokens[index] == tokens:
            return self._seconds[index]
        if index == 0 or len(self._tokens) == 1:
            return self._seconds[0] * tokens / self._tokens[0]
        index = min(index, len(self._tokens) - 1)
        left, right = self._tokens[index - 1], self._tokens[index]
        slope = (self._seconds[index] - self._seconds[index - 1]) / (right - left)
        return self._seconds[index - 1] + slope * (tokens - left)


@dataclass(slots=True)
class Acceptance:
    """One request's probability that the next draft token is right, by evidence class."""

    priors: dict[int, float]
    rates: dict[int, float] = field(default_factory=dict)

    def rate(self, evidence: int) -> float:
        if evidence in self.rates:
            return self.rates[evidence]
        return self.priors.get(evidence, PRIOR_ACCEPTANCE)

    def learn(self, *, evidence: int, draft: Sequence[int], emitted: Sequence[int]) -> None:
        """Judge draft tokens up to and including the first wrong one."""
        for proposed, actual in zip(draft, emitted, strict=False):
            hit = float(proposed == actual)
            self._move(self.priors, evidence, hit, weight=ENGINE_WEIGHT)
            self.rates.setdefault(evidence, self.priors[evidence])
            self._move(self.rates, evidence, hit, weight=REQUEST_WEIGHT)
            if not hit:
                return

    @staticmethod
    def _move(rates: dict[int, float], evidence: int, hit: float, *, weight: float) -> None:
        rate = rates.get(evidence, PRIOR_ACCEPTANCE)
        rates[evidence] = rate + weight * (hit - rate)


def draft_lengths(
    candidates: Sequence[tuple[float, int]], *, base_tokens: int, sampling: int, curve: CostCurve
) -> list[int]:
    """How many tokens of each draft to send: the choice with the most tokens per second.

    `candidates`: (acceptance rate, available length) per request. `base_tokens` is the step
    without drafts, `sampling` of its requests emit a token each. Tokens are added in the order of
    their chance to be emitted, and the best prefix of that order wins.
    """
    offers = [
        (rate ** (depth + 1), index)
        for index, (rate, length) in enumerate(candidates)
        for depth in range(length)
    ]
    # The sort is stable, so the tokens of one draft stay in order when their chances tie.
    offers.sort(key=lambda offer: -offer[0])
    base_seconds = curve.seconds(base_tokens)
    decode_seconds = curve.seconds(max(1, sampling))
    emitted, best, best_speed = float(sampling), 0, sampling / decode_seconds
    for count, (chance, _) in enumerate(offers, start=1):
        emitted += chance
        seconds = decode_seconds + curve.seconds(base_tokens + count) - base_seconds
        if emitted / seconds > best_speed * (MARGIN if best == 0 else 1.0):
            best, best_speed = count, emitted / seconds
    lengths = [0] * len(candidates)
    for _, index in offers[:best]:
        lengths[index] += 1
    return lengths
