"""The price of a longer step, and so of a draft: milliseconds by the number of its tokens."""

from dataclasses import dataclass
from typing import Final

from bench.engine.wire import Settings
from workers.config import EngineConfig
from workers.engine.engine import Engine
from workers.speculation.policy import CURVE_TOKENS

DRAFT_MAX: Final = 7
REPEATS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """`step_ms` of a step by its tokens: the least of several timings, as the policy sees it."""

    tokens: list[int]
    step_ms: list[float]

    @property
    def break_even(self) -> list[tuple[int, float]]:
        """By draft length: how many tokens a step must give to be worth its drafts."""
        sizes = zip(self.tokens, self.step_ms, strict=True)
        return [(size - 1, ms / self.step_ms[0]) for size, ms in sizes if 1 < size <= DRAFT_MAX + 1]


def measure(settings: Settings) -> Costs:
    engine = Engine.load(EngineConfig(**settings))
    curves = [engine.measure_costs() for _ in range(REPEATS)]
    return Costs(
        tokens=list(CURVE_TOKENS),
        step_ms=[
            round(1e3 * min(curve.seconds(size) for curve in curves), 3) for size in CURVE_TOKENS
        ],
    )
