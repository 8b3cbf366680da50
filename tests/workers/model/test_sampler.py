import itertools
import math

import pytest
import torch

from workers.model.sampler import (
    NonFiniteLogits,
    SamplingParams,
    check_finite,
    draw,
    edit_logits,
    find_peaks,
    token_logprobs,
    uniform,
    verify,
)

GRID = 100
# The toy model: probabilities in hundredths, by the token before (None at the start).
TOY = {None: (50, 30, 20), 0: (10, 60, 30), 1: (25, 25, 50), 2: (90, 10, 0)}


def toy_draw(previous: int | None, chance: float) -> int:
    row = torch.tensor([math.log(p / GRID) if p else -math.inf for p in TOY[previous]])
    return draw(row.double(), SamplingParams(temperature=1.0), chance)


def two_tokens(draft: list[int], chances: tuple[float, float], verifier=verify) -> tuple[int, ...]:
    """Generate two tokens, the first step with a draft, the next (if needed) without."""
    tokens: list[int] = []
    while len(tokens) < 2:
        sent = draft if not tokens else []
        tokens += verifier(sent, drawer(tokens, sent, chances))
    return tuple(tokens[:2])


def drawer(tokens: list[int], sent: list[int], chances: tuple[float, float]):
    done = len(tokens)

    def draw_at(index: int) -> int:
        before = [*tokens[:done], *sent[:index]]
        return toy_draw(before[-1] if before else None, chances[min(done + index, 1)])

    return draw_at


def exact_counts() -> dict[tuple[int, int], int]:
    """How often each pair must come among GRID * GRID equally likely chances."""
    return {
        (a, b): TOY[None][a] * TOY[a][b]
        for a, b in itertools.product(range(3), repeat=2)
        if TOY[None][a] * TOY[a][b]
    }


def enumerate_pairs(draft: list[int], verifier=verify) -> dict[tuple[int, ...], int]:
    """Outcomes of all chances of a grid, which stands for every random number exactly."""
    middle = [(i + 0.5) / GRID for i in range(GRID)]
    counts: dict[tuple[int, ...], int] = {}
    for chances in itertools.product(middle, repeat=2):
        pair = two_tokens(draft, chances, verifier)
        counts[pair] = counts.get(pair, 0) + 1
    return counts


@pytest.mark.parametrize("draft", [[], [0], [2], [0, 1], [1, 2], [2, 0]])
def test_drafts_leave_the_exact_distribution_unchanged(draft: list[int]):
    assert enumerate_pairs(draft) == exact_counts()


def test_drafts_leave_every_single_text_unchanged():
    # given
    chances = [(uniform(seed, 0), uniform(seed, 1)) for seed in range(300)]

    # when
    plain = [two_tokens([], pair) for pair in chances]
    drafted = [two_tokens([0, 1], pair) for pair in chances]

    # then
    assert drafted == plain


def careless_verify(draft, draw_at):
    """A mutant: it accepts a draft half of the time without asking the target."""
    tokens = []
    for index in range(len(draft) + 1):
        token = draw_at(index)
        if index < len(draft) and token > draft[index]:
            token = draft[index]
        tokens.append(token)
        if index < len(draft) and token != draft[index]:
            break
    return tokens


def chi_square(verifier, *, samples: int = 20_000) -> float:
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(samples):
        pair = two_tokens([1, 1], (uniform(seed, 0), uniform(seed, 1)), verifier)
        counts[pair] = counts.get(pair, 0) + 1
    expected = {pair: n * samples / GRID**2 for pair, n in exact_counts().items()}
    assert counts.keys() <= expected.keys()
    return sum((counts.get(pair, 0) - n) ** 2 / n for pair, n in expected.items())


def test_sampled_pairs_pass_chi_square_and_a_mutant_fails_it():
    # given: 8 possible pairs, 7 degrees of freedom, 0.1 % point 24.3
    limit = 24.3

    # then
    assert chi_square(verify) < limit
    assert chi_square(careless_verify) > 10 * limit


def test_the_mutant_fails_the_enumeration_too():
    assert enumerate_pairs([1, 1], careless_verify) != exact_counts()


def test_verification_stops_at_the_first_token_the_target_would_not_draw():
    assert verify([5, 6, 7], lambda i: [5, 9, 7, 8][i]) == [5, 9]


def test_a_fully_accepted_draft_earns_one_more_token():
    assert verify([5, 6], lambda i: [5, 6, 7][i]) == [5, 6, 7]


def test_uniform_is_fixed_by_seed_and_position():
    assert uniform(7, 3) == uniform(7, 3)
    assert len({uniform(seed, position) for seed in range(50) for position in range(50)}) == 2500
    mean = sum(uniform(1, i) for i in range(10_000)) / 10_000
    assert abs(mean - 0.5) < 0.01


ROW = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])


def reachable(params: SamplingParams, row: torch.Tensor = ROW) -> set[int]:
    return {draw(row, params, (i + 0.5) / 2000) for i in range(2000)}


def test_temperature_zero_takes_the_best_token():
    assert reachable(SamplingParams(temperature=0.0)) == {0}


def test_top_k_keeps_the_k_likeliest():
    assert reachable(SamplingParams(top_k=2)) == {0, 1}


def test_top_k_above_the_vocabulary_keeps_everything():
    assert reachable(SamplingParams(top_k=1000)) == {0, 1, 2, 3, 4}


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    # probabilities are 0.636, 0.234, 0.086, 0.032, 0.012
    assert reachable(SamplingParams(top_p=0.6)) == {0}
    assert reachable(SamplingParams(top_p=0.65)) == {0, 1}
    assert reachable(SamplingParams(top_p=0.9)) == {0, 1, 2}


def test_top_p_counts_within_what_top_k_left():
    # of the two likeliest, the first has 0.731
    assert reachable(SamplingParams(top_k=2, top_p=0.7)) == {0}
    assert reachable(SamplingParams(top_k=2, top_p=0.75)) == {0, 1}


def test_min_p_is_relative_to_the_likeliest():
    assert reachable(SamplingParams(min_p=0.3)) == {0, 1}


def test_top_p_reaches_past_the_first_candidates_of_a_flat_distribution():
    # given
    flat = torch.zeros(5000)

    # when
    drawn = {draw(flat, SamplingParams(top_p=0.5), (i + 0.5) / 5000) for i in range(5000)}

    # then
    # Half of 5000, give or take the rounding of their sum.
    assert len(drawn) in (2500, 2501)


def test_truncated_draws_have_the_renormalised_probabilities():
    # given
    params = SamplingParams(top_k=3)
    weights = torch.softmax(ROW[:3], -1)

    # when
    drawn = [draw(ROW, params, (i + 0.5) / 10_000) for i in range(10_000)]

    # then
    for token in range(3):
        assert drawn.count(token) == pytest.approx(10_000 * float(weights[token]), abs=2)


def test_the_last_chance_never_leaves_the_support():
    row = torch.tensor([0.0, 0.0, -math.inf])
    assert draw(row, SamplingParams(), 1.0 - 2**-53) == 1


def test_penalties_count_the_output_only():
    # given
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)

    # when
    row = edit_logits(torch.zeros(4), params, prompt=[0, 0], output=[1, 1, 2])

    # then
    assert row.tolist() == [0.0, -1.0, -0.75, 0.0]


def test_repetition_penalty_counts_prompt_and_output():
    # given
    params = SamplingParams(repetition_penalty=2.0)

    # when
    row = edit_logits(torch.tensor([2.0, -2.0, 2.0]), params, prompt=[0], output=[1])

    # then
    assert row.tolist() == [1.0, -4.0, 2.0]


def test_bias_is_added_and_the_model_row_stays_untouched():
    # given
    original = torch.zeros(3)

    # when
    row = edit_logits(original, SamplingParams(logit_bias={2: 5.0}), prompt=[], output=[])

    # then
    assert row.tolist() == [0.0, 0.0, 5.0]
    assert original.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_logits_are_refused(bad: float):
    with pytest.raises(NonFiniteLogits):
        check_finite(find_peaks(torch.tensor([[0.0, 1.0], [bad, 0.0]])))


@pytest.mark.parametrize("vocab", [3, 256, 700, 1024])
def test_peaks_are_the_first_of_the_largest_logits(vocab: int):
    # given: rows with ties within and across the stretches that are searched
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randint(0, 40, (50, vocab), generator=generator).float()

    # when
    peaks = find_peaks(logits)

    # then
    for row, peak in zip(logits.tolist(), peaks, strict=True):
        assert (peak.token, peak.logit) == (row.index(max(row)), max(row))


@pytest.mark.parametrize("place", [0, 255, 256, 699])
def test_a_nan_anywhere_is_a_peak(place: int):
    logits = torch.zeros(2, 700)
    logits[1, place] = float("nan")
    assert not math.isfinite(find_peaks(logits)[1].logit)
    assert find_peaks(logits)[0].logit == 0.0


def test_logprobs_are_the_models_own():
    # when
    entry = token_logprobs(ROW, 1, 2)

    # then
    logs = torch.log_softmax(ROW, -1)
    assert entry.logprob == pytest.approx(float(logs[1]))
    assert [token for token, _ in entry.top] == [0, 1]
