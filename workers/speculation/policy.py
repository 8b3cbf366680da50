"""When to draft and how much: expected tokens per second of the whole step, measured both ways.

Acceptance is learned per request and per evidence class, also from drafts that were proposed and
not sent: comparing them with what came costs nothing, so a request at length 0 can come back.
Cost is the measured time of a step by its number of tokens, and the time that proposers take.
"""

import operator
import time
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from math import inf

from workers.device import Clock

PRIOR_ACCEPTANCE = 0.5
REQUEST_WEIGHT = 0.1
ENGINE_WEIGHT = 0.02
COST_WEIGHT = 0.1
# A longer step must promise this much more than a shorter one: timings are not that exact.
MARGIN = 1.02
# Every size up to 8, where a draft more or less decides and the kernels' blocks make stairs.
CURVE_TOKENS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 24, 32, 64)
SHORT_MAX = 8
ROUNDS_MIN, ROUNDS_MAX = 2, 64
# A guess less likely than this never pays: no step grows so little by a token.
CHANCE_MIN = 0.02

TimeStep = Callable[[int], float]


class CostCurve:
    """Seconds of a step by its token count: linear between measured points, never falling.

    A disturbance makes a timing too long, never too short. So where a longer step took less, the
    shorter one was disturbed, and is taken to cost what the longer one does.
    """

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        assert points
        self._tokens = [tokens for tokens, _ in points]
        self._points = list(accumulate((seconds for _, seconds in reversed(points)), min))[::-1]
        # It is asked for many times in every step: whatever was measured is looked up.
        self._table = [self._interpolated(tokens) for tokens in range(self._tokens[-1] + 1)]

    @classmethod
    def measured(
        cls, time_step: TimeStep, *, limit: int, seconds: float, clock: Clock = time.perf_counter
    ) -> "CostCurve":
        """The least of the timings at each size up to `limit` tokens, within about `seconds`.

        The sizes take turns: what disturbs the machine for a while then disturbs all of them, and
        each has its undisturbed rounds. The least is what a step costs that nobody held up. Short
        steps decide most and cost least: they have four rounds while long ones have one.
        """
        sizes = [tokens for tokens in CURVE_TOKENS if tokens <= limit]
        short = [tokens for tokens in sizes if tokens <= SHORT_MAX]
        least = dict.fromkeys(sizes, inf)
        started, rounds = clock(), 0
        while rounds < ROUNDS_MIN or (rounds < ROUNDS_MAX and clock() - started < seconds):
            for size in short if rounds % 4 else sizes:
                least[size] = min(least[size], time_step(size))
            rounds += 1
        return cls(list(least.items()))

    def seconds(self, tokens: int) -> float:
        return self._table[tokens] if tokens < len(self._table) else self._interpolated(tokens)

    def _interpolated(self, tokens: int) -> float:
        index = bisect_left(self._tokens, tokens)
        if index < len(self._tokens) and self._tokens[index] == tokens:
            return self._points[index]
        if index == 0 or len(self._tokens) == 1:
            return self._points[0] * tokens / self._tokens[0]
        index = min(index, len(self._tokens) - 1)
        left, right = self._tokens[index - 1], self._tokens[index]
        slope = (self._points[index] - self._points[index - 1]) / (right - left)
        return self._points[index - 1] + slope * (tokens - left)


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
        """For each token of a draft, the chance that it and all before it are right.

        The list ends where the chance is too small for the token to be worth sending.
        """
        products = accumulate(map(self.rate, evidence), operator.mul)
        return list(takewhile(lambda chance: chance >= CHANCE_MIN, products))

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
        longer = self.curve.seconds(self.base_tokens + drafted)
        if self.base_tokens == self.sampling:
            return longer
        decoding = self.curve.seconds(max(1, self.sampling))
        return decoding + longer - self.curve.seconds(self.base_tokens)


def draft_lengths(chances: Sequence[Sequence[float]], step: StepCosts) -> list[int]:
    """How many tokens of each draft to send: the choice with the most tokens per second.

    `chances`: for each request and token, that it is emitted. Tokens are added in the order of
    their chances, and the best prefix of that order wins.
    """
    offers = [(chance, index) for index, row in enumerate(chances) for chance in row]
    lengths = [0] * len(chances)
    if not offers:
        return lengths
    # The sort is stable, so the tokens of one draft stay in order when their chances tie.
    offers.sort(key=lambda offer: -offer[0])
    emitted, best, best_speed = float(step.sampling), 0, step.sampling / step.seconds(0)
    for count, (chance, _) in enumerate(offers, start=1):
        emitted += chance
        speed = emitted / step.seconds(count)
        if speed > best_speed * (MARGIN if best == 0 else 1.0):
            best, best_speed = count, speed
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
