"""Drafts of a proposer with a distribution of its own: the target's distribution must come out.

Such a proposer offers its likeliest token, so its draft is certain (q is one-hot) and `verify` is
rejection sampling for it: accepted with p(draft), else a draw from (p - q)+, which is p without
the draft, renormalised. A mutant that draws from p after a rejection has to be noticed.
"""

import hashlib
import math
from collections import Counter

import pytest
import torch

from workers.model.sampler import SamplingParams, draw, uniform, verify

SAMPLES = 100_000
GRID = 200
TARGET = (0.45, 0.05, 0.30, 0.20)
DRAFTS = ((0.60, 0.20, 0.10, 0.10), (0.05, 0.70, 0.15, 0.10), (0.1, 0.2, 0.3, 0.4))
ROW = torch.tensor([math.log(share) for share in TARGET], dtype=torch.float64)
PARAMS = SamplingParams(temperature=1.0)


def drafted(shares: tuple[float, ...]) -> int:
    return shares.index(max(shares))


def first_token(draft: int, chance: float, fresh: float) -> int:
    """The first token of a step of the production code."""
    return verify([draft], lambda index: draw(ROW, PARAMS, chance))[0]


def mutant(draft: int, chance: float, fresh: float) -> int:
    """Rejects as it should, and then draws from p in place of (p - q)+."""
    token = draw(ROW, PARAMS, chance)
    return token if token == draft else draw(ROW, PARAMS, fresh)


def fresh_chance(seed: int) -> float:
    digest = hashlib.blake2b(b"fresh %d" % seed, digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def sampled(step, draft: int) -> Counter[int]:
    return Counter(step(draft, uniform(seed, 0), fresh_chance(seed)) for seed in range(SAMPLES))


def total_variation(counts: Counter[int]) -> float:
    return sum(abs(counts[i] / SAMPLES - share) for i, share in enumerate(TARGET)) / 2


def chi_square(counts: Counter[int]) -> float:
    expected = [share * SAMPLES for share in TARGET]
    return sum((counts[i] - n) ** 2 / n for i, n in enumerate(expected))


# The expected total variation of 1e5 samples over 4 tokens is about 0.002; 0.1 % point of chi
# square with 3 degrees of freedom.
VARIATION_MAX = 0.006
CHI_SQUARE_MAX = 16.3


def test_every_chance_gives_the_token_of_the_target():
    for shares in DRAFTS:
        counts = Counter(first_token(drafted(shares), (i + 0.5) / GRID, 0.0) for i in range(GRID))
        assert [counts[i] / GRID for i in range(4)] == pytest.approx(TARGET)


def test_a_hundred_thousand_samples_have_the_distribution_of_the_target():
    counts = sampled(first_token, drafted(DRAFTS[0]))
    assert total_variation(counts) < VARIATION_MAX
    assert chi_square(counts) < CHI_SQUARE_MAX


def test_drawing_the_residual_from_p_is_noticed():
    for shares in DRAFTS:
        if TARGET[drafted(shares)] in (max(TARGET), 0.2):
            counts = sampled(mutant, drafted(shares))
            assert total_variation(counts) > 10 * VARIATION_MAX
            assert chi_square(counts) > 100 * CHI_SQUARE_MAX


def test_an_accepted_draft_is_as_likely_as_the_target_makes_it():
    # when
    for shares in DRAFTS:
        draft = drafted(shares)
        accepted = sum(
            len(verify([draft], lambda index, c=(i + 0.5) / GRID: draw(ROW, PARAMS, c))) == 2
            for i in range(GRID)
        )

        # then
        assert accepted / GRID == pytest.approx(TARGET[draft])
