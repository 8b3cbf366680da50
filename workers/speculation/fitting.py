"""Fits a draft head to a corpus: soft cross-entropy against the target's own distribution.

Index conventions, for a dialogue of tokens x and features g: `g[t]` is what the target makes of
x[0..t], so it decides x[t+1]. When x[t+1] is known and not yet computed, a head drafts from g[t]
(EAGLE also from x[t+1]); its depth i (from 0) guesses x[t+2+i], which g[t+1+i] decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.speculation.corpus import Dialogue
from workers.speculation.heads import WINDOW, EagleHead, Head, MedusaHead

HELD_OUT_EVERY = 16
BATCH = 6
LENGTH_MAX = 192
DEPTH_WEIGHT = 0.8
GRADIENT_NORM_MAX = 1.0
WARM_UP = 0.03
BANNED = -1e9


@dataclass(frozen=True, slots=True)
class Padded:
    """Some dialogues: tokens [rows, length], features [rows, length - 1, hidden]."""

    tokens: Tensor
    features: Tensor
    lengths: Tensor  # [rows]
    prompt_counts: Tensor  # [rows]

    def judged(self, depth: int) -> Tensor:
        """[rows, starts]: where a guess of that depth has an answer token to be compared with."""
        starts = torch.arange(self.tokens.shape[1] - 2 - depth)
        after_prompt = starts[None] + 1 >= self.prompt_counts[:, None]
        before_end = starts[None] + 2 + depth < self.lengths[:, None]
        return after_prompt & before_end


def pad(dialogues: Sequence[Dialogue]) -> Padded:
    length = min(LENGTH_MAX, max(len(dialogue.tokens) for dialogue in dialogues))
    width = dialogues[0].features.shape[1]
    tokens = torch.zeros(len(dialogues), length, dtype=torch.int64)
    features = torch.zeros(len(dialogues), length - 1, width)
    lengths = []
    for row, dialogue in enumerate(dialogues):
        count = min(length, len(dialogue.tokens))
        tokens[row, :count] = torch.tensor(dialogue.tokens[:count])
        features[row, : count - 1] = dialogue.features[: count - 1].float()
        lengths.append(count)
    prompt_counts = torch.tensor([dialogue.prompt_count for dialogue in dialogues])
    return Padded(tokens, features, torch.tensor(lengths), prompt_counts)


def split(dialogues: list[Dialogue]) -> tuple[list[Dialogue], list[Dialogue]]:
    """For training and, every sixteenth, held out."""
    train = [d for i, d in enumerate(dialogues) if i % HELD_OUT_EVERY]
    return train, dialogues[::HELD_OUT_EVERY]


def frequent_tokens(dialogues: Sequence[Dialogue], count: int) -> Tensor:
    """The tokens that answers use most, in order of their ids."""
    uses: Tensor = torch.bincount(
        torch.tensor([token for d in dialogues for token in d.tokens[d.prompt_count :]])
    )
    return uses.topk(min(count, int((uses > 0).sum()))).indices.sort().values


class Fitter:
    """Loss and acceptance of one head over batches of dialogues."""

    def __init__(self, head: Head, *, depth: int, embedding: Tensor, output: Tensor) -> None:
        """`embedding` [vocab, hidden] of all tokens, `output` [few, hidden] of the head's own."""
        self.head = head
        self._depth = depth
        self._embedding = embedding
        self._output = output

    def loss(self, batch: Padded) -> Tensor:
        with torch.no_grad():
            teacher = torch.softmax(batch.features @ self._output.T, -1)
        total = torch.zeros(())
        weights = 0.0
        for depth, guessed in enumerate(self.guesses(batch)):
            judged = batch.judged(depth)
            logits = guessed[judged] @ self._output.T  # [guesses, few]
            wanted = teacher[:, 1 + depth :][judged]
            weight = DEPTH_WEIGHT**depth
            total = total + weight * F.cross_entropy(logits, wanted)
            weights += weight
        return total / weights

    @torch.no_grad()
    def hits(self, batch: Padded, tokens: Tensor, *, top: int = 1) -> Tensor:
        """[depth, starts]: whether each guess was right, where every depth can be judged.

        `tokens` are the head's own. With `top` > 1 any of the best ones counts.
        """
        everywhere = batch.judged(self._depth - 1)
        starts = everywhere.shape[1]
        rows: list[Tensor] = []
        for depth, guessed in enumerate(self.guesses(batch)):
            best = (guessed[:, :starts][everywhere] @ self._output.T).topk(top).indices
            actual = batch.tokens[:, 2 + depth : 2 + depth + starts][everywhere]
            rows.append((tokens[best] == actual[:, None]).any(-1))
        return torch.stack(rows)

    def guesses(self, batch: Padded) -> Iterator[Tensor]:
        """For each depth the guessed features [rows, starts, hidden]."""
        if isinstance(self.head, MedusaHead):
            moved = self.head(batch.features.flatten(0, 1))
            moved = moved.unflatten(0, batch.features.shape[:2])
            for depth in range(self._depth):
                yield moved[:, : batch.tokens.shape[1] - 2 - depth, depth]
        else:
            yield from self._eagle(self.head, batch)

    def _eagle(self, head: EagleHead, batch: Padded) -> Iterator[Tensor]:
        """Unrolled on its own predictions, with the true tokens: what acceptance would give it."""
        embedded = self._embedding[batch.tokens]
        joined = head.pairs(embedded[:, 1:], batch.features)
        past = head.keys_values(joined)  # [rows, pairs, 2, heads, dim]
        chain: list[Tensor] = []
        for depth in range(self._depth):
            count = batch.tokens.shape[1] - 2 - depth
            joined = joined[:, :count]
            if depth:
                chain.append(head.keys_values(joined))
            attended = _attend_window(
                head, head.queries(joined), past[:, :count], [link[:, :count] for link in chain]
            )
            guessed = head.finish(joined, attended)
            yield guessed
            joined = head.pairs(embedded[:, 2 + depth : 2 + depth + count], guessed)


def _attend_window(head: EagleHead, query: Tensor, past: Tensor, chain: list[Tensor]) -> Tensor:
    """Attention [rows, starts, heads * dim] over the last pairs and one's own chain of guesses."""
    starts, depth = query.shape[1], len(chain)
    distance = torch.arange(starts)[:, None] - torch.arange(starts)[None]  # [starts, starts]
    seen = (distance >= 0) & (distance < WINDOW)
    bias = head.distance[:, (distance.clamp(0, WINDOW - 1) + depth)]
    scores = torch.einsum("bqhd,bkhd->bhqk", query, past[:, :, 0]) * query.shape[-1] ** -0.5
    parts = [(scores + bias).masked_fill(~seen, BANNED)]
    for index, link in enumerate(chain):
        own = (query * link[:, :, 0]).sum(-1) * query.shape[-1] ** -0.5  # [rows, starts, heads]
        parts.append((own + head.distance[:, depth - 1 - index]).transpose(1, 2)[..., None])
    shares = torch.softmax(torch.cat(parts, -1), -1)
    mixed = torch.einsum("bhqk,bkhd->bqhd", shares[..., :starts], past[:, :, 1])
    for index, link in enumerate(chain):
        share = shares[..., starts + index].transpose(1, 2)[..., None]  # [rows, starts, heads, 1]
        mixed = mixed + share * link[:, :, 1]
    return mixed.flatten(2)


def learning_rate(peak: float, done: float) -> float:
    """Warm up, then fall along a cosine to a twentieth; `done` is the share of the time spent."""
    if done < WARM_UP:
        return peak * (0.05 + 0.95 * done / WARM_UP)
    turn = torch.pi * min(1.0, (done - WARM_UP) / (1 - WARM_UP))
    return peak * (0.05 + 0.95 * 0.5 * (1 + float(torch.cos(torch.tensor(turn)))))
