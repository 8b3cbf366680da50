"""Whether a token that was drawn again is the one that was drawn before."""

from enum import StrEnum
from typing import Final

from torch import Tensor

from workers.model.sampler import TORCH_SOFTMAX, SamplingParams, Softmax, draw

# How far rounding may move a logit, and a chance along the cumulative distribution.
TIE_LOGIT: Final = 1e-3
TIE_CHANCE: Final = 1e-4


class Verdict(StrEnum):
    SAME = "same"
    TIE = "tie"
    DIFFERENT = "different"


def compare(
    row: Tensor,
    params: SamplingParams,
    *,
    chance: float,
    drawn: int,
    expected: int,
    softmax: Softmax = TORCH_SOFTMAX,
) -> Verdict:
    """Judge a token drawn from `row` [vocab] in place of the expected one."""
    if drawn == expected:
        return Verdict.SAME
    if abs(float(row[drawn] - row[expected])) <= TIE_LOGIT:
        return Verdict.TIE
    if not params.is_greedy:
        for moved in (chance - TIE_CHANCE, chance + TIE_CHANCE):
            possible = min(max(moved, 0.0), 1.0 - 1e-12)
            if draw(row, params, possible, softmax) == expected:
                return Verdict.TIE
    return Verdict.DIFFERENT
