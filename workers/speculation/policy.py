"""When to draft and how much: expected tokens per second of the whole step, measured both ways.

Acceptance is learned per request and per evidence class, also from drafts that were proposed and
not sent: comparing them with what came costs nothing, so a request at length 0 can come back.
Cost is the measured time of a step by its number of tokens, and the time that proposers take.
"""

import operator
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

PRIOR_ACCEPTANCE = 0.5
REQUEST_WEIGHT = 0.15
ENGINE_WEIGHT = 0.02
COST_WEIGHT = 0.1
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


class DraftCost:
    """Seconds that a proposer takes for so many requests, by depth; measured as it works.

    A size that was never tried is taken to cost nothing, so that it is tried once.
    """

    def __init__(self) -> None:
        self._seconds_per_token: dict[int, float] = {}

    def seconds(self, requests: int, depth: int) -> float:
        return depth * self._seconds_per_token.get(requests.bit_length(), 0.0)

    def learn(self, requests: int, depth: int, seconds: float) -> None:
        if depth < 1:
            return
        size, measured = requests.bit_length(), seconds / depth
        before = self._seconds_per_token.get(size, measured)
        self._seconds_per_token[size] = before + COST_WEIGHT * (measured - before)


Kind = Hashable


@dataclass(slots=True)
class Acceptance:
    """One request's probability that the next draft token is right, by kind of evidence."""

    priors: dict[Kind, float]
    rates: dict[Kind, float] = field(default_factory=dict)

    def rate(self, kind: Kind) -> float:
        if kind in self.rates:
            return self.rates[kind]
        return self.priors.get(kind, PRIOR_ACCEPTANCE)

    def chances(self, evidence: Iterable[Kind]) -> list[float]:
        """For each token of a draft, the chance that it and all before it are right."""
        return list(accumulate((self.rate(kind) for kind in evidence), operator.mul))

    def learn(
        self, *, evidence: Sequence[Kind], draft: Sequence[int], emitted: Sequence[int]
    ) -> None:
        """Judge draft tokens up to and including the first wrong one."""
        for kind, proposed, actual in zip(evidence, draft, emitted, strict=False):
            hit = float(proposed == actual)
            self._move(self.priors, kind, hit, weight=ENGINE_WEIGHT)
            self.rates.setdefault(kind, self.priors[kind])
            self._move(self.rates, kind, hit, weight=REQUEST_WEIGHT)
            if not hit:
                return

    @staticmethod
    def _move(rates: dict[Kind, float], kind: Kind, hit: float, *, weight: float) -> None:
        rate = rates.get(kind, PRIOR_ACCEPTANCE)
        rates[kind] = rate + weight * (hit - rate)


@dataclass(frozen=True, slots=True)
class StepCosts:
    """A step without drafts, of which `sampling` requests emit a token each."""

    base_tokens: int
    sampling: int
    curve: CostCurve

    def seconds(self, drafted: int) -> float:
        """Of the step's part that decodes: what its prompts cost is theirs in any case."""
        decoding = self.curve.seconds(max(1, self.sampling))
        longer = self.curve.seconds(self.base_tokens + drafted)
        return decoding + longer - self.curve.seconds(self.base_tokens)


def draft_lengths(chances: Sequence[Sequence[float]], step: StepCosts) -> list[int]:
    """How many tokens of each draft to send: the choice with the most tokens per second.

    `chances`: for each request and token, that it is emitted. Tokens are added in the order of
    their chances, and the best prefix of that order wins.
    """
    offers = [(chance, index) for index, row in enumerate(chances) for chance in row]
    # The sort is stable, so the tokens of one draft stay in order when their chances tie.
    offers.sort(key=lambda offer: -offer[0])
    emitted, best, best_speed = float(step.sampling), 0, step.sampling / step.seconds(0)
    for count, (chance, _) in enumerate(offers, start=1):
        emitted += chance
        speed = emitted / step.seconds(count)
        if speed > best_speed * (MARGIN if best == 0 else 1.0):
            best, best_speed = count, speed
    lengths = [0] * len(chances)
    for _, index in offers[:best]:
        lengths[index] += 1
    return lengths


def draft_depth(chances: Sequence[Sequence[float]], step: StepCosts, cost: DraftCost) -> int:
    """How deep to let a proposer that runs a model guess for these requests, 0 for not at all."""
    emitted, best, best_speed = float(step.sampling), 0, step.sampling / step.seconds(0)
    for depth in range(1, max(map(len, chances), default=0) + 1):
        emitted += sum(row[depth - 1] for row in chances if len(row) >= depth)
        drafted = sum(min(len(row), depth) for row in chances)
        seconds = step.seconds(drafted) + cost.seconds(len(chances), depth)
        if emitted / seconds > best_speed * (MARGIN if best == 0 else 1.0):
            best, best_speed = depth, emitted / seconds
    return best
