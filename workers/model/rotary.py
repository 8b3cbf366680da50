"""Rotary position embedding: how far each pair of dimensions turns at each position.

The scaled kinds are those of published checkpoints: linear, Llama 3's and YaRN. Kinds whose
frequencies depend on the length of the text are refused by `families`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

RopeKind = Literal["default", "linear", "llama3", "yarn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """The rotary part of a config.json. `pretrained_length` is in tokens."""

    dim: int
    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    pretrained_length: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    # What cosine and sine are multiplied with: YaRN sharpens attention so.
    magnitude: float = 1.0


def rotations(rope: Rope, length: int) -> Tensor:
    """Complex rotation of every pair at every position: [length, 1, dim / 2]."""
    angles = torch.outer(torch.arange(length).float(), frequencies(rope))
    return torch.polar(torch.full_like(angles, rope.magnitude), angles)[:, None]


def rotate(x: Tensor, rotation: Tensor) -> None:
    """Turn `x` [tokens, heads, dim], whose pairs are neighbours, in place, computing in fp32."""
    wide = x.float()  # x itself where it is fp32 already
    torch.view_as_complex(wide.view(*x.shape[:-1], -1, 2)).mul_(rotation)
    if wide is not x:
        x.copy_(wide)


def frequencies(rope: Rope) -> Tensor:
    """Radians per position of each pair: [dim / 2]."""
    # The exponents are rounded to fp32 as the reference implementation rounds them.
    exponents = torch.arange(0, rope.dim, 2, dtype=torch.int64).float() / rope.dim
    plain = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope, plain)
    if rope.kind == "yarn":
        return _yarn(rope, plain)
    return plain


def _llama3(rope: Rope, plain: Tensor) -> Tensor:
    """Slow turns are slowed by the factor, fast ones kept, those between blended."""
    turns = rope.pretrained_length * plain / (2 * math.pi)  # within the pretrained length
    span = rope.high_frequency_factor - rope.low_frequency_factor
    kept = ((turns - rope.low_frequency_factor) / span).clamp(0, 1)
    return (1 - kept) * plain / rope.factor + kept * plain


def _yarn(rope: Rope, plain: Tensor) -> Tensor:
    """Bowen Peng et al., "YaRN" (2023): a linear ramp over the dimensions, not the frequencies."""
    low = max(math.floor(_pair_that_turns(rope, rope.beta_fast)), 0)
    high = min(math.ceil(_pair_that_turns(rope, rope.beta_slow)), rope.dim - 1)
    width = high - low or 0.001
    slowed = ((torch.arange(rope.dim // 2).float() - low) / width).clamp(0, 1)
    return slowed * plain / rope.factor + (1 - slowed) * plain


def _pair_that_turns(rope: Rope, turns: float) -> float:
    """The pair, as a real number, that turns so often within the pretrained length."""
    position = rope.pretrained_length / (turns * 2 * math.pi)
    return rope.dim * math.log(position) / (2 * math.log(rope.theta))


def yarn_magnitude(factor: float, strength: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * strength * math.log(factor) + 1.0
