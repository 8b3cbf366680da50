"""From logits to a token: penalties, bias, temperature, top-k, top-p, min-p, log probabilities.

Each draw is an inverse-CDF look-up of one uniform number that depends only on the request's seed
and the position of the token. So a seed gives the same text whatever else shared the batch, and
drafts can be verified by drawing: see `verify`.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5
STRETCH = 256
# Tokens are looked for among those so likely, relative to the likeliest, until enough are found.
FLOORS = (1e-3, 1e-6, 0.0)

Draw = Callable[[int], int]


class NonFiniteLogits(ArithmeticError):
    """The model produced NaN or infinity for this request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int = 0
    logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def edits_logits(self) -> bool:
        return bool(
            self.logit_bias
            or self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1.0
        )

    @property
    def truncates(self) -> bool:
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    token: int
    logprob: float
    top: list[tuple[int, float]]


class Softmax(Protocol):
    """Finds tokens by their share of the softmax of logits [vocab] divided by a temperature."""

    def draw(self, row: Tensor, temperature: float, chance: float) -> int:
        """The first token up to which the shares exceed `chance` in [0, 1)."""

    def likely(self, row: Tensor, temperature: float, floor: float) -> tuple[Tensor, Tensor]:
        """Tokens whose share is at least `floor` times the largest, and their shares."""


class TorchSoftmax:
    def draw(self, row: Tensor, temperature: float, chance: float) -> int:
        return _pick(torch.softmax(row.double() / temperature, -1), chance)

    def likely(self, row: Tensor, temperature: float, floor: float) -> tuple[Tensor, Tensor]:
        shares = torch.softmax(row.double() / temperature, -1)
        tokens = (shares >= floor * shares.max()).nonzero()[:, 0]
        return tokens, shares[tokens]


TORCH_SOFTMAX = TorchSoftmax()


class Peak(NamedTuple):
    """The likeliest token of a row of logits, and its logit."""

    token: int
    logit: float


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides the output token at `position` of a request."""
    digest = hashlib.blake2b(b"%d:%d" % (seed, position), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def edit_logits(
    row: Tensor, params: SamplingParams, *, prompt: Sequence[int], output: Sequence[int]
) -> Tensor:
    """A copy of `row` after bias and penalties (presence and frequency count output only)."""
    if not params.edits_logits:
        return row
    row = row.clone()
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *output}))
        values = row[seen]
        penalty = params.repetition_penalty
        row[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if output and (params.presence_penalty or params.frequency_penalty):
        counts = Counter(output)
        tokens = torch.tensor(list(counts))
        repeats = torch.tensor(list(counts.values()), dtype=row.dtype)
        row[tokens] -= params.presence_penalty + params.frequency_penalty * repeats
    if params.logit_bias:
        tokens = torch.tensor(list(params.logit_bias))
        row[tokens] += torch.tensor(list(params.logit_bias.values()), dtype=row.dtype)
    return row


def draw(
    row: Tensor, params: SamplingParams, chance: float, softmax: Softmax = TORCH_SOFTMAX
) -> int:
    """The token that `chance` in [0, 1) selects from the distribution of `params` over `row`."""
    if params.is_greedy:
        return int(row.argmax())
    if params.truncates:
        weights, tokens = _kept(row, params, softmax)
        return int(tokens[_pick(weights, chance)])
    return softmax.draw(row, params.temperature, chance)


def _pick(weights: Tensor, chance: float) -> int:
    """Index of the first weight whose cumulative share exceeds `chance`."""
    cumulative = weights.double().cumsum(0)
    target = chance * float(cumulative[-1])
    index = int(torch.searchsorted(cumulative, target, right=True))
    if index >= len(weights):
        # Rounding put the target at the very end: the last token that can occur at all.
        index = int(weights.nonzero()[-1])
    return index


def _kept(row: Tensor, params: SamplingParams, softmax: Softmax) -> tuple[Tensor, Tensor]:
    """Probabilities and tokens, likeliest first, that survive min-p, top-k and top-p.

    The order of the filters is vLLM's: min-p and top-k first, top-p of what they left.
    """
    wanted = params.top_k or len(row)
    for floor in FLOORS:
        tokens, shares = softmax.likely(row, params.temperature, max(floor, params.min_p))
        all_that_min_p_leaves = floor <= params.min_p
        if all_that_min_p_leaves or len(tokens) >= wanted:
            break
        if not params.top_k and not params.min_p and float(shares.sum()) >= params.top_p:
            break
    order = torch.sort(shares.double(), descending=True, stable=True)
    probabilities, tokens = order.values[:wanted], tokens[order.indices[:wanted]]
    mass = float(probabilities.sum()) if params.top_k or params.min_p else 1.0
    # A token stays while what is before it has not reached top_p: one always stays.
    before = probabilities.cumsum(0) - probabilities
    count = max(1, int((before < params.top_p * mass).sum()))
    return probabilities[:count], tokens[:count]


def verify(draft: Sequence[int], draw_at: Draw) -> list[int]:
    """Tokens of one step: `draw_at(i)` samples the target after i accepted draft tokens.

    A draft token is kept exactly when the target's own draw is the same token. For a draft that
    is certain of its token (q is one-hot) this is rejection sampling: accepted with p(draft), and
    what a rejection emits has the distribution of p without the draft, renormalised. Because the
    draws do not depend on the draft, the text is the one that no drafting would have given.
    """
    tokens: list[int] = []
    for index in range(len(draft) + 1):
        tokens.append(draw_at(index))
        if index < len(draft) and tokens[index] != draft[index]:
            break
    return tokens


def find_peaks(logits: Tensor) -> list[Peak]:
    """The peak of each row [rows, vocab]; of equal logits the first, and NaN above all.

    The largest of short stretches first: torch looks for an index a number at a time, and for a
    value with whole registers, so this takes a sixth of what `argmax` does.
    """
    rows, vocab = logits.shape
    if rows == 0 or vocab < STRETCH or logits.device.type != "cpu":
        values, tokens = logits.max(-1)
        # Together, because every reading waits for the device.
        found = torch.stack((tokens.double(), values.double())).tolist()
        return [Peak(int(token), value) for token, value in zip(*found, strict=True)]
    whole = vocab // STRETCH * STRETCH
    stretches = logits[:, :whole].view(rows, whole // STRETCH, STRETCH)
    values, places = stretches.amax(-1).max(-1)
    inside = stretches[torch.arange(rows), places].argmax(-1)
    peaks = list(map(Peak, (places * STRETCH + inside).tolist(), values.tolist()))
    if whole == vocab:
        return peaks
    return list(map(_higher, peaks, find_peaks(logits[:, whole:]), repeat(whole)))


def _higher(peak: Peak, later: Peak, offset: int) -> Peak:
    is_higher = later.logit > peak.logit or math.isnan(later.logit)
    return Peak(later.token + offset, later.logit) if is_higher else peak


def check_finite(peaks: Sequence[Peak]) -> None:
    if not all(math.isfinite(peak.logit) for peak in peaks):
        raise NonFiniteLogits


def token_logprobs(row: Tensor, token: int, count: int) -> TokenLogprobs:
    """Log probabilities of the model itself, before temperature and filters."""
    logs = torch.log_softmax(row, -1)
    values, tokens = logs.topk(count) if count else (logs[:0], logs[:0])
    top = [(int(t), float(v)) for t, v in zip(tokens, values, strict=True)]
    return TokenLogprobs(token=token, logprob=float(logs[token]), top=top)
